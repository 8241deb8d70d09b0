"""The SQLite database: its schema, the engine's store, and what is read from it."""
