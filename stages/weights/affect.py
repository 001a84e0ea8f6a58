"""Weights of affect."""

from stages.weights.entry import Weights

WEIGHTS: tuple[Weights, ...] = ()
