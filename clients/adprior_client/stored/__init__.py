"""Stored forecasts: in Parquet files and in Redis."""
