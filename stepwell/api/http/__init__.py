"""HTTP details that all endpoints share: bodies and content encodings, errors, trailing slashes."""
