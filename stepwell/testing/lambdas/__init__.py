"""Lambda in tests: real processes on the real Runtime API."""
