"""A run: its state machine, its steps' inputs and outcomes."""
