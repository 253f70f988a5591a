"""`python -m infty` is `infty`."""

from infty.cli import main

main()
