"""Stepwell: an event-driven queue and DAG engine with no SDK."""

__version__ = "0.2.0"
