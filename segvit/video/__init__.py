"""Video codecs: read and write videos, and parse the addresses of webcams and streams."""
