"""Prediction: files to files, with label maps and overlays of photos, folders and videos."""
