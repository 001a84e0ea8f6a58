"""Erasure: finding somebody, taking them out everywhere, showing that nothing is left."""
