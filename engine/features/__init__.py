"""What the frozen CLIP says of images and categories: encoded once, stored, and read in batches."""
