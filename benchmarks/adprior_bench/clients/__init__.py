"""Parts of ``adprior bench clients``."""
