"""Read the files of one labelling tool each: Label Studio, YOLO, Supervisely, VIA, run lengths, masks per class."""
