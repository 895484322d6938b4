"""Writing files whole, and their modes."""
