"""The inputs of a run: cut into pieces, split by user, assembled into candidates."""
