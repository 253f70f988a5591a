"""How fast and how small: ratios taken side by side, each contestant in a fresh process of its own."""
