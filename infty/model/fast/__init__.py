"""Compute attention (Dai et al. 2019) and dropout (Srivastava et al. 2014) fast, each equal to its plain form."""
