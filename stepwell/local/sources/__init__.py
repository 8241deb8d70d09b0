"""Reads the records of other queues, and accepts the events that they make."""
