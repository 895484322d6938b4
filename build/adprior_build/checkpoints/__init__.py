"""Checkpoints of causal language models, read without torch."""
