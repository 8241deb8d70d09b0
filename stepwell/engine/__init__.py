"""The engine: events start and wake runs, facts change runs, and what follows is carried out. See `loop`."""
