"""The HTTP API on AWS: ingest of events, and `/v1`."""
