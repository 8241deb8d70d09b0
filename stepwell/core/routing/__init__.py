"""Routing: which functions an event starts, which waits it may satisfy, and which version a run uses."""
