"""Train a model: the loop, what it learns from, and how a run survives."""
