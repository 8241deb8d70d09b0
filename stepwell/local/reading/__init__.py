"""A separate process that answers reads of a busy server."""
