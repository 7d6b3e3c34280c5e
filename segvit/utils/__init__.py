"""Small tools that every package may use: files, text, threads, processes, devices, resizing."""
