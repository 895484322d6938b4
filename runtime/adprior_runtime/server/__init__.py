"""A tritonserver process: found, started, watched, stopped."""
