"""Faces that are unfit whoever they are: measured, and filtered by limits."""
