"""`stepwell backup` and `restore`."""
