"""What is wanted and not there, and computing it: tasks, workers, Ray, sealing."""
