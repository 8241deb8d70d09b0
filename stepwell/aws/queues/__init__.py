"""Messages on the queues and the event bus: formats, sending, redelivery, dead letters."""
