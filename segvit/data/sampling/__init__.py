"""Choose what a step sees: order, crops, rare classes, unreadable images."""
