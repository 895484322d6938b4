"""The interface of a source of stored forecasts, and the counts of its lookups."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Protocol, runtime_checkable

from adprior_client.results import Forecast
from adprior_client.types import UserId


@runtime_checkable
class ForecastSource(Protocol):
    """A source of stored forecasts: any object with this method."""

    def find(self, user_id: UserId) -> Forecast | None:
        """Return the user's latest forecast, with ``made_at``, or None.

        It runs in a thread, with a timeout: the rest of the call's deadline, at least 10 ms. An
        exception or a malformed forecast counts as None.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupCounts:
    """Lookups since the source was made, by outcome.

    Attributes:
        found: A forecast was found.
        absent: Redis has no forecast of the user, or no version at all.
        corrupt: The record is malformed, or another user's.
        from_future: The record's time is in the future: refused.
        failed: Redis did not answer, or refused.
        skipped: Redis was not asked because the last lookups failed.
    """

    found: int = 0
    absent: int = 0
    corrupt: int = 0
    from_future: int = 0
    failed: int = 0
    skipped: int = 0

    def to_json(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)
