"""Weights of segment."""

from stages.weights.entry import Weights

WEIGHTS: tuple[Weights, ...] = ()
