"""Retrieval under a quota: a conventional retriever with and without the forecast's filter."""
