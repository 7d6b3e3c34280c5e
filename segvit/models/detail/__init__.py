"""Optional parts, all ours, that keep small objects and boundaries sharp."""
