"""Projects on disk: definition files, event types, webhooks, and the code of steps."""
