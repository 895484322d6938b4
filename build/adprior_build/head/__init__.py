"""Fitting the prior head on ranking logs."""
