"""Who is where in the image."""
