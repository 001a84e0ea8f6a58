"""Metrics as pure functions in float64: arrays in, numbers out."""
