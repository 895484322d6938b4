"""Code that ``adprior predict`` and ``adprior rank`` share."""
