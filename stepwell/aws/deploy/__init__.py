"""`stepwell push` and `prune`: create and remove the Lambdas, task definitions and roles of functions."""
