"""The SQLite database: schema, lists, log files, API keys, the lock and the write-ahead log."""
