"""Answer labelling tools: the routes that Label Studio asks for, and a function for CVAT."""
