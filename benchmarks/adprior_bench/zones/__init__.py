"""Parts of ``adprior bench zone-loss``."""
