"""Training augmentation: the steps as pure functions of tensors and a random generator, and their order."""
