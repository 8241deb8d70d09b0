"""Events: the envelope, the users they name, and cron ticks."""
