"""How lookups of stored forecasts ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass


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
