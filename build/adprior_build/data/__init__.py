"""Event logs and profiles: any shape, read through a column map."""
