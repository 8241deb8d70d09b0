"""The commands that serve, and those that look after a server's data and keys."""
