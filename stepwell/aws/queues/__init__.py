"""Messages: what the queues and the event bus carry, and how it is sent."""
