"""CEL expressions: compiling and evaluating them, their cost, and their errors."""
