"""Every method, trained or without training, scored on the same test images."""
