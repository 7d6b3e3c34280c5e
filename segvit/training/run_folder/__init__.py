"""The folder of a run: its name, the lock of the process that trains in it, and what is written at start and end."""
