"""The output directory: the table, its manifest, the summary."""
