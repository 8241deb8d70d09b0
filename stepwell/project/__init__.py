"""A project on disk: definition files and the code of their steps."""
