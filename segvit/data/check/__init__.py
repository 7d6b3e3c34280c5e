"""Check a dataset before training, and explain how to fix it."""
