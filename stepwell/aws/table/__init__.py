"""The DynamoDB table: keys, conditions, and items as Python objects."""
