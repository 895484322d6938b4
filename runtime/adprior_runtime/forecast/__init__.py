"""The steps of a forecast: tokenize, search, decode."""
