"""Cheaper training of a backbone: outputs of frozen blocks kept on disk, and low-rank weights in place of all."""
