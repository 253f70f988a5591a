"""The commands of `infty`, a file or a folder each."""
