"""Check a dataset before training, and say how to fix it."""
