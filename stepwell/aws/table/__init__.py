"""The DynamoDB table: its keys, and its items as Python objects."""
