"""The local platform: one process, SQLite, and steps in warm workers or child processes."""
