"""Who is where in the picture."""
