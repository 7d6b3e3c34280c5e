"""Datasets: specs and label formats, pairs of files, reading, augmentation, sampling, and the check before training."""
