"""Rules that make events of what other systems send: requests of webhooks, records of sources."""
