"""A server under mixed load for a long time: what its processes keep in memory."""
