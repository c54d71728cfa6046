"""`python -m robust_zoo.cli`."""

from robust_zoo.cli import main

main()
