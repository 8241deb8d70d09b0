"""`python -m stepwell` runs the command `stepwell`."""

from stepwell.cli.main import main

main()
