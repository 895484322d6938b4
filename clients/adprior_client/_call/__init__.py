"""Private: one call, from a request to its answer."""
