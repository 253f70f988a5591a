"""Devices, processes and memory, and the placement of a model on them."""
