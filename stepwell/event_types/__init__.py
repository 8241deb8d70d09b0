"""Event types: the JSON Schemas of events, what two versions of one have in common, and expressions checked by them."""
