"""The network: backbone, attention to mask, the whole, and its file."""
