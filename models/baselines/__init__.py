"""The other methods, as models: CLIP zero-shot, TagCLIP, SPARC, CDUL, TaI-DPT."""
