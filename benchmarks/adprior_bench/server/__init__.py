"""``adprior bench server``: a server under load, compared with the same engine in-process."""
