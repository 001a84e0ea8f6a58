"""Which faces of a person are the person."""
