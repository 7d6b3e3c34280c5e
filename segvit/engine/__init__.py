"""What runs a model: training, evaluation, prediction, and the files that they leave."""
