"""Reports as one self-contained HTML page, and the viewer of label maps."""
