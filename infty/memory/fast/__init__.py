"""Make the memory's equations (M1 to M12) quick, each equal to its plain form."""
