"""The Triton model repository: its configurations rendered, and the whole of it checked."""
