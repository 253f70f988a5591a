"""`infty reproduce`: every cell × seed that tables lack, each trained by a process of its own. Imports no torch."""
