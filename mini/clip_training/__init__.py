"""What trained the mini CLIP (`python -m mini.train_clip` runs it), and what squeezes its features."""
