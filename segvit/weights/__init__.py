"""Files of weights: segvit's own, timm's, the authors', and the Hugging Face Hub."""
