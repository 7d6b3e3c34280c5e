"""The help of the commands, their examples, and the answers to words that they do not know."""
