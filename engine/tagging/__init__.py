"""Photos of one's own: found, loaded in batches, scored, and written as tables and as a page, a photo at a time."""
