"""Texts, times and JSON: one rule for training, serving, bulk and clients."""
