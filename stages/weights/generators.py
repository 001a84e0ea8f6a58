"""Weights of generators."""

from stages.weights.entry import Weights

WEIGHTS: tuple[Weights, ...] = ()
