"""The head in three dimensions."""
