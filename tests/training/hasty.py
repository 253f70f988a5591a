"""`python -m tests.training.hasty …` is `infty …` that does not wait for slow disks."""

from infty.cli import main
from infty.commands.train import session

session.LATE = 1
main()
