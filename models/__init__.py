"""The method: frozen encoder, masks, kernel, graph, CLIP-GCN, losses, ReSO."""
