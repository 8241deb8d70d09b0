"""The environment's signing keys, and the attempts' tokens signed with them."""
