"""The commands of `infty`, one module or package each."""
