"""The code of steps: storage, verification and repair."""
