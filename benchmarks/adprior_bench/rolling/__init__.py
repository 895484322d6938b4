"""Parts of ``adprior bench rolling``."""
