"""Runners execute attempts: programs, Lambda handlers, HTTP calls and containers."""
