"""Files that are written whole or linked, and their modes."""
