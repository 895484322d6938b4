"""When a call must return: its own deadline, or the client's."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from adprior_client.checks import check_number
from adprior_client.config import ClientConfig


@dataclass(frozen=True, slots=True)
class Deadline:
    """The end of one call, retries and other servers included.

    Attributes:
        timeout_s: The whole time of the call.
        ends_at: The end, on the clock of `time.monotonic`.
    """

    timeout_s: float
    ends_at: float

    @classmethod
    def start(cls, config: ClientConfig, deadline_s: float | None) -> Self:
        """Start the clock; without ``deadline_s`` the configuration's deadline holds."""
        timeout_s = config.deadline_s
        if deadline_s is not None:
            timeout_s = check_number(deadline_s, "deadline_s")
        return cls(timeout_s, time.monotonic() + timeout_s)

    @property
    def left_s(self) -> float:
        """Seconds until the end, negative after it."""
        return self.ends_at - time.monotonic()
