"""Parts of ``adprior bench search``."""
