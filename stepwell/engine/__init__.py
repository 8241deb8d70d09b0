"""The engine: events start and wake runs, facts change runs, and the effects are carried out. See `loop`."""
