"""Settings of a training run that fit the machine and the data, and a guide to backbones."""
