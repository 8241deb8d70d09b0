"""Starts attempts of steps, and reads their outcomes."""
