"""Images, names, split files and labels of the datasets."""
