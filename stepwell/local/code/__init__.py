"""The code of steps: kept, checked, and restored."""
