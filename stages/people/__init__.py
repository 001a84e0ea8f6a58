"""What cleaning found, by person."""
