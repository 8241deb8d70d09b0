"""The names of the two containers of a step's ECS task."""

STEP = "step"
ADAPTER = "adapter"
