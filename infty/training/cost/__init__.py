"""What a step costs: seconds, bytes, floating-point operations."""
