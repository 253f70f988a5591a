"""Texts on this machine: fetched or imported once, checked, and turned into token files. Imports no torch."""
