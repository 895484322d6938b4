"""Ends a model's process that cannot answer requests any more."""

from __future__ import annotations

import logging
import os
from typing import Final, NoReturn

_STATUS: Final = 75
"""EX_TEMPFAIL: another start may succeed."""


def end_process(reason: str) -> NoReturn:
    """Log why, and end this process at once; `adprior serve` sees it and starts the server again.

    Args:
        reason: A line that quotes no user's data.
    """
    logging.getLogger("adprior").critical("%s: the process ends", reason)
    os._exit(_STATUS)
