"""The command ``adprior explore``."""
