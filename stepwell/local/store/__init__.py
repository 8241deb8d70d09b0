"""The engine's store in SQLite: what a batch reads and writes."""
