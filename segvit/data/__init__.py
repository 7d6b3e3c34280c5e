"""Datasets: what labels mean (spec), where files lie (files), reading (labels, dataset), augmentation, checks."""
