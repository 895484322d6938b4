"""The output directory: its tables and its manifest."""
