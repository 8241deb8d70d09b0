"""Backup and restore of a database with its code and logs."""
