"""What the images show, in words."""
