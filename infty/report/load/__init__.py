"""Finished runs, published values and tunings, read back."""
