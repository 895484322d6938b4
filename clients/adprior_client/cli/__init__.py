"""What ``adprior predict`` and ``adprior rank`` share."""
