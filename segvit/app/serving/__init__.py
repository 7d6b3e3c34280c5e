"""Serve programs: the API, its description, keys, health, metrics and the end of the server."""
