"""Frozen networks other than CLIP: their patch features and global ones, brought to one width."""
