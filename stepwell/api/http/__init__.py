"""What all requests share: bodies and their encodings, errors, slashes."""
