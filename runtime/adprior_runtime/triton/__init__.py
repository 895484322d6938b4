"""The repository's Python models: each reads tensors, runs a step, and returns tensors."""
