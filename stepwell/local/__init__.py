"""The local platform: one process, SQLite, steps in warm workers or child processes."""
