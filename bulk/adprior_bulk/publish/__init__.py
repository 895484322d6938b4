"""Stored forecasts into Redis: files, batches, versions, and the command that moves the pointer."""
