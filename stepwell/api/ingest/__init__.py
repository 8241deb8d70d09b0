"""`POST /e`: turns requests into events."""
