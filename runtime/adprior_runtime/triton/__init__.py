"""The repository's Python models: each takes tensors apart, asks its module, and answers."""
