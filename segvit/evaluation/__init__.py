"""Score a model on a dataset: confusion matrix, boundary IoU, example images, files."""
