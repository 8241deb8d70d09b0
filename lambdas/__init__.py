"""The engine's Lambdas, one file each. `stepwell/aws/lambdas` is a symlink to here, so that wheels contain them."""
