"""Dense facial points."""
