"""Forecasts for every active user, each day, on Ray."""
