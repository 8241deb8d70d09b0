"""Servers and environments that commands talk to."""
