"""Export models to other runtimes, one file per format, and compare their labels with PyTorch's."""
