"""Events: the envelope, the users in them, and cron ticks."""
