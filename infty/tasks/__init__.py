"""What models are trained on (section 4)."""
