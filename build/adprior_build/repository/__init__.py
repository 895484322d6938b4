"""Bundles and model repositories are made here."""
