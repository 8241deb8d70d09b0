"""What is asked of the operating system: limits, memory, users, file modes."""
