"""Run reports as a single self-contained HTML page, and the viewer of label maps."""
