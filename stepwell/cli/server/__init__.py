"""The commands that run a server, and those that manage a server's data and keys."""
