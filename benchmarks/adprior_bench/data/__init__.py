"""Event logs for benchmarks: their origin, cases, summaries, results kept."""
