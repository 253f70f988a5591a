"""Attention and dropout made quick, each equal to its plain form."""
