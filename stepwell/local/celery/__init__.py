"""Talks to Celery apps: task messages, results, and the threads that wait for brokers and result backends."""
