"""Finding faces: one backend a file, all of them writing their rows through `rows`."""
