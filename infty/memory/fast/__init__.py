"""The memory's equations (section 3) made quick, each equal to its plain form."""
