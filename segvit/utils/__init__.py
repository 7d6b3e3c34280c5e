"""Small tools that every package may use: files, threads, processes, devices, resizing."""
