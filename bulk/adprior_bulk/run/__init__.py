"""One run: its settings, its shards, its workers, its engines."""
