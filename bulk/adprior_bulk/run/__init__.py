"""One run: which users are due, how they are forecast, shards and their workers, the summary."""
