"""Finds, starts, watches and stops a tritonserver process."""
