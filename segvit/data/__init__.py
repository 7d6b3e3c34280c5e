"""Datasets: what labels mean (spec), where files lie (files), reading (dataset), augmentation (transforms), checks."""
