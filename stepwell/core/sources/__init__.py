"""Sources: queues and topics of other systems whose records become events."""
