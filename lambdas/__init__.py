"""The engine's Lambdas: a file is a function. `stepwell/aws/lambdas` is a link to here, so that a package has them."""
