"""The emulated AWS account, and the faults that it can inject."""
