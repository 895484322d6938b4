"""Writes a causal language model as the files that the torch engine runs."""
