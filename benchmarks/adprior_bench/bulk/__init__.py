"""Parts of ``adprior bench bulk``."""
