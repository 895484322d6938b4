"""Offline: event logs to a checkpoint, a bundle and a Triton model repository."""
