"""Build decoders whose layers have a memory each (section 3)."""
