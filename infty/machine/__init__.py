"""Devices, processes, memory, and how a model is placed."""
