"""Network architectures in torch: one a file, weights and files left to the stages."""
