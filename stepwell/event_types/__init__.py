"""Event types: JSON Schemas of events, the compatibility of their versions, and the check of expressions by schemas."""
