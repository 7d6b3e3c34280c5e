"""Write label maps as the files of labelling tools."""
