"""Steps: how attempts are started, and how their outcomes come back."""
