"""What an event starts and wakes: triggers, waits, versions, guards."""
