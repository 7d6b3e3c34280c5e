"""Read label maps: index PNG, painted colours, .mat."""
