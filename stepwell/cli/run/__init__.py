"""`stepwell run`."""
