"""A run: the state machine, the inputs of steps and the outcomes of attempts."""
