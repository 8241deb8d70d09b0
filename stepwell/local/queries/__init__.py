"""What people ask of the database: lists and details for the API."""
