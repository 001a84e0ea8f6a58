"""The dataset as SQL, and numbers about it."""

from pipeline.catalogue.connection import connect

__all__ = ["connect"]
