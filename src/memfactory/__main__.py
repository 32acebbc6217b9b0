"""`python -m memfactory` is the `memfactory` command."""

from memfactory.cli.main import main

main()
