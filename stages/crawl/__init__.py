"""Getting the bytes of candidates."""
