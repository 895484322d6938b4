"""Calls at random times, however long the answers take: an open loop."""
