"""A package of somebody's own, with a backend."""
