"""`python -m datasets.build`: split files from the original annotations, or from a folder of photos of one's own."""
