"""Unpack downloaded datasets into the folders that segvit reads."""
