"""`stepwell types`."""
