"""The commands that ask a server or an environment in AWS, and those for a project's files: one module each."""
