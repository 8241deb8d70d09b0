"""`stepwell replay`."""
