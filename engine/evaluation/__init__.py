"""What a model is measured by: metrics, the test split, zoomed test images, the predictor for single photos."""
