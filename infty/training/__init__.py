"""Optimisation, checkpoints and the loop."""
