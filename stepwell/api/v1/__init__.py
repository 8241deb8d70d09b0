"""`/v1`: the application, and its operations by what they are about."""
