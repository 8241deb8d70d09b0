"""`python -m stepwell` is the command `stepwell`."""

from stepwell.cli.main import main

main()
