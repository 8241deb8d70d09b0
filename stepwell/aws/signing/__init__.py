"""The environment's signing keys, and the tokens of attempts that are made with them."""
