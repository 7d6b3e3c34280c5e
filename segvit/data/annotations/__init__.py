"""Read the files of labelling tools: shapes by class name (LabelMe, CVAT, COCO)."""
