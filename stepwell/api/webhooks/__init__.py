"""`POST /webhooks/{name}`: from any sender's request to an event."""
