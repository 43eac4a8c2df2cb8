"""Training BAC-GCN: labels and model from flags, an epoch, ReSO's crops, checkpoints, the folder of a run."""
