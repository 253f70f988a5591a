"""Experiments as YAML: strict reading, overlays, faults, the catalogue, and the machine's settings."""
