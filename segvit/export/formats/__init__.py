"""Formats of exported models, one class per file.

    form = choose_format(Path("model.onnx"), None)          # by the ending, or by name
    segvit.export_model(model, "model.onnx")                # the door: it checks, compares, and places the file

To add a format, write one file with a subclass of `Format` (format.py), and add one line to `FORMATS` (table.py). The
class states its facts: name, ending, precisions, packages, and whether any size and any batch fits. It writes a traced
model into a temporary folder, and runs what it wrote. The door, segvit/export/export.py, does the rest for all formats:
the path, the photos, the sizes, the comparison with PyTorch, the header, and the final name. `segvit export --format`
and its help read the same table.

These modules import no torch and no optional package at the top. So the command line can check first what is typed.
"""
