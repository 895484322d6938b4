"""Keeps the clients' messages from burying a benchmark's table."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def few_messages() -> Iterator[None]:
    """Keep the clients' lines about each circuit breaker to errors."""
    log = logging.getLogger("adprior_client")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
