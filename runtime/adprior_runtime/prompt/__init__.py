"""Turns a user context into the prompt that the language model reads."""
