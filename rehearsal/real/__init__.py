"""Checks of a deployed environment in a real AWS account: `python -m rehearsal.real --env smoke`."""
