"""From class and mask logits to scores and label maps."""
