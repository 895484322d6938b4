"""Writes files completely or not at all, links files, and checks their modes."""
