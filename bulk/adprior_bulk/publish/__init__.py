"""Stored forecasts into Redis: batches of records, versions, the publisher's lock."""
