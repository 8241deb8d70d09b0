"""Readers: API reads in a process of their own."""
