"""Webhooks: rules that create events from requests, and the checks of signatures."""
