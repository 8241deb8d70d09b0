"""The HTTP API, once for every platform: `POST /e` as plain functions, `/v1` as one ASGI application."""
