"""Train a model: the loop, its data and optimizer, and the checkpoints that a run resumes from."""
