"""`python -m tests.distributed.hasty …` is `infty …` that does not wait for slow disks."""

from infty import together
from infty.cli import main

together.LATE = 1
main()
