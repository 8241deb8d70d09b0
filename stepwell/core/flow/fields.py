"""The fields of a definition that control its runs, in the order in which they apply."""

FLOW_CONTROL = ("idempotency", "rate_limit", "singleton", "priority", "throttle", "concurrency", "timeouts")
