"""From files to files: label maps and overlays of photos, folders and videos."""
