"""The dataset as SQL, and numbers about it."""

from idcluster.catalogue.connection import connect

__all__ = ["connect"]
