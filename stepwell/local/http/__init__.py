"""The HTTP server: connections of HTTP/1.1, HTTP/2 and TLS."""
