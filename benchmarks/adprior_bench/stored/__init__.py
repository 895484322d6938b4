"""Parts of ``adprior bench stored``."""
