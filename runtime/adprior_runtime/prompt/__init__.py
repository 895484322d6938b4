"""From a user context to the prompt that the language model reads."""
