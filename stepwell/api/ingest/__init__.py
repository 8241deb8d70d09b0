"""`POST /e`: from requests to events."""
