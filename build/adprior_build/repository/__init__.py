"""Bundles and model repositories: made and checked."""
