"""One run: users who are due, forecasters, shards and their workers, the summary."""
