"""Where a client finds stored forecasts, and how its lookups end."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Protocol, runtime_checkable

from adprior_client.results import Forecast
from adprior_client.types import UserId


@runtime_checkable
class ForecastSource(Protocol):
    """Where stored forecasts are found; anything with this method will do."""

    def find(self, user_id: UserId) -> Forecast | None:
        """Return the user's latest forecast, with ``made_at``, or None.

        It is asked in a thread, has what is left of the call's deadline (10 ms at least), and is
        not waited for beyond that. What it raises, or gives that is malformed, counts as none.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupCounts:
    """How lookups ended, since the source was made.

    Attributes:
        found: With a forecast.
        absent: Redis has none for the user, or no version at all.
        corrupt: What it has is not a record of ours, or not this user's.
        from_future: The record lies in the future by our clock: refused.
        failed: No answer: late, refused, disconnected.
        skipped: Not asked, since the last ones failed.
    """

    found: int = 0
    absent: int = 0
    corrupt: int = 0
    from_future: int = 0
    failed: int = 0
    skipped: int = 0

    def to_json(self) -> dict[str, int]:
        """Return them by name."""
        return asdict(self)
