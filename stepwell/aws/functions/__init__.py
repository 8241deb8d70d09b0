"""What is registered: functions and their versions, schedules, event types, webhooks."""
