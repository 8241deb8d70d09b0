"""Registered definitions: functions and versions, schedules, event types, webhooks."""
