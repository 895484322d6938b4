"""The Triton model repository."""
