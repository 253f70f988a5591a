"""The command line of infty."""

from infty.cli.app import main

__all__ = ["main"]
