"""Function definitions: their models, and what is wrong with one."""
