"""Weights of heads."""

from stages.weights.entry import Weights

WEIGHTS: tuple[Weights, ...] = ()
