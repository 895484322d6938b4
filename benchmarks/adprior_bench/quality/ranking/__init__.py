"""Ranking on a simulated log: a base ranker, with the prior head and without."""
