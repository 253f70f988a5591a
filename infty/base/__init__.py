"""Batches, errors, messages, files, tables and progress bars: what every package may use."""
