"""The other methods, as models: CLIP zero-shot, TagCLIP, CDUL, TaI-DPT."""
