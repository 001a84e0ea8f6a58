"""Weights of metrics."""

from stages.weights.entry import Weights

WEIGHTS: tuple[Weights, ...] = ()
