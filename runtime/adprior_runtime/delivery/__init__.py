"""Moves bundles and model repositories to and from a URL: a directory, HTTP or an object store."""
