"""`/v1`: the ASGI application, and one module for each group of operations."""
