"""Identity vectors: one backend a file, each in its own space (`recogniser`)."""
