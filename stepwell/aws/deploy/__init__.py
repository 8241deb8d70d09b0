"""`stepwell push` and `prune`: from definitions to Lambdas, task definitions and roles."""
