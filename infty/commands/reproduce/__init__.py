"""`infty reproduce`: every cell × seed that tables lack, each trained by a process of its own. Imports no torch."""

from infty.commands.reproduce.missing import Tables, find_missing, format_time
from infty.commands.reproduce.workers import train_missing

__all__ = ["Tables", "find_missing", "format_time", "train_missing"]
