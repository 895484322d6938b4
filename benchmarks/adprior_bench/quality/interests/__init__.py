"""Interests: the bundle's second output, measured on the same cases."""
