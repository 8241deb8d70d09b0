"""Webhooks: rules that make events of requests, and the requests' signatures."""
