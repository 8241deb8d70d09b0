"""`stepwell push`."""
