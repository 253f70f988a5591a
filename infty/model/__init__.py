"""Decoders with one seat for a memory."""
