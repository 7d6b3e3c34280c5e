"""The method: backbone, down-sampling, up-sampling, attention to mask, and the model that joins them."""
