"""``adprior bench server``: a served repository under load, beside the same engine in-process."""
