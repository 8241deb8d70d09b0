"""Lists and details for the API, read from the database."""
