"""`infty bench`: ratios of speed and memory, taken side by side, each contestant in a fresh process of its own."""
