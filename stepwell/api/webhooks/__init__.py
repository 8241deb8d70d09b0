"""`POST /webhooks/{name}`: turns requests of any sender into events."""
