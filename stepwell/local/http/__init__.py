"""The HTTP server: connections with HTTP/1.1, HTTP/2 and TLS."""
