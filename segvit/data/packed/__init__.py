"""Datasets packed into other files: tables of Hugging Face `datasets`, and tar shards of WebDataset."""
