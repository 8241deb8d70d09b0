"""Interfaces to the operating system: limits, memory, users and file modes."""
