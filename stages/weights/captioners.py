"""Weights of captioners."""

from stages.weights.entry import Weights

WEIGHTS: tuple[Weights, ...] = ()
