"""Inference: image tensors to label maps, through any model, at any size and in any precision."""
