"""The tasks that models are trained on (section 4)."""
