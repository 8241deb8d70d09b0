"""How a step is executed on one machine: programs, Lambda handlers, HTTP calls, containers."""
