"""The flags of the scripts: what each is called, takes and defaults to; and the flags of earlier runs."""
