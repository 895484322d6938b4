"""Baselines: forecasts from the same events and profiles, without a language model.

To add a baseline, write a class with ``probabilities(case)`` in a file of this folder and add a
`Family` with its grid of settings to `registry.baseline_families`. It then appears in every table
of the report, and its forecast goes through retrieval and ranking like the language model's.
"""
