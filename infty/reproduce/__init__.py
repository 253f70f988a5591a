"""`infty reproduce`: every cell × seed that tables lack, each trained by a process of its own. Imports no torch."""

from infty.reproduce.tables import Tables, clock, find_missing
from infty.reproduce.work import train_missing

__all__ = ["Tables", "clock", "find_missing", "train_missing"]
