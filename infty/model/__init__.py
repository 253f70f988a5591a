"""Decoders with one seat for a memory (section 3)."""
