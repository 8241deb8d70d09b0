"""The command line: one module a command. It speaks the HTTP API; only `keys` opens the database."""
