"""Who is whom across the whole dataset."""
