"""Baselines: forecasts from the same events and profiles, without a language model.

Each is fitted on training users before the cut and asked for a probability of every advertiser, so
that all go through the same metrics, and any can stand in for the language model's forecast.
"""
