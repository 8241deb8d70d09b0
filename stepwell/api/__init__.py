"""The HTTP API, shared by all platforms: `POST /e` as plain functions, `/v1` as one ASGI application."""
