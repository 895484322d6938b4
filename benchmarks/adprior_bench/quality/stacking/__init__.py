"""Stacking: what a forecast adds to a conventional ranker that may learn how to use it.

A second stage learns from the first ranker's score, its signals and a forecast's columns. The
control learns from the same rows without the forecast. Both are fitted on validation users, from
whom neither the language model nor the first ranker has learnt: on the model's own training users,
its probabilities are too confident, and a second stage would trust them too much.
"""
