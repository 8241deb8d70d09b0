"""Function definitions: the models, and the checks that explain every problem of a definition."""
