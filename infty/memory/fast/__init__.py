"""The memory's equations made quick, each equal to its plain form."""
