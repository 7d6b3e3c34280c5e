"""Draw the inside of a model: attention, cascade, kept tokens."""
