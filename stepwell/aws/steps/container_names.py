"""How the two containers of a step's ECS task are called."""

STEP = "step"
ADAPTER = "adapter"
