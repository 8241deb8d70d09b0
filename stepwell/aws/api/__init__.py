"""The HTTP API on AWS: ingest and `/v1`."""
