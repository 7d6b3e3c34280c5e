"""Training that starts from a trained model and forgets nothing: classes added to it, labels of a teacher."""
