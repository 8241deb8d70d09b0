"""Commands that call a server or an environment in AWS, and commands for a project's files: one module each."""
