"""Build decoders in which each layer has a memory (section 3)."""
