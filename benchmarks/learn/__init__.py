"""Time to accuracy, beside lightly; see `__main__`."""
