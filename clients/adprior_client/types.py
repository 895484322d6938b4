"""What goes into the clients and what comes out of them, as plain immutable values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal, TypeAlias

__all__ = [
    "Advertiser",
    "CandidateStatusName",
    "Event",
    "Forecast",
    "Moment",
    "RankedCandidate",
    "Ranking",
    "Scalar",
    "User",
]

Scalar: TypeAlias = str | int | float | bool | None
Moment: TypeAlias = str | date | datetime
"""ISO 8601 text, a date or a date-time; one without a zone is taken as UTC by the server."""

CandidateStatusName: TypeAlias = Literal["exact", "upper_bound", "not_in_catalogue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing a user did.

    Attributes:
        time: When.
        action: purchase, click, search, visit ...
        advertiser: The advertiser's name, if any.
        category: A category, if any.
        text: Free text (a query, a title), if any.
    """

    time: Moment
    action: str
    advertiser: str | None = None
    category: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """What the caller knows of one user.

    Attributes:
        profile: Flat map, any keys; null values are ignored.
        history: Events, oldest first; the server drops those after ``as_of``.
        as_of: The time the forecast is for; a bare date includes that whole day.
    """

    profile: Mapping[str, Scalar] = field(default_factory=dict)
    history: Sequence[Event] = ()
    as_of: Moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertiser:
    """One advertiser of a forecast; ``log_prob`` is the natural log of its probability."""

    advertiser_id: int
    name: str
    log_prob: float

    @property
    def probability(self) -> float:
        """The probability, in [0, 1]."""
        return min(math.exp(self.log_prob), 1.0)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of this advertiser."""
        return {
            "advertiser_id": self.advertiser_id,
            "name": self.name,
            "log_prob": self.log_prob,
            "probability": self.probability,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The advertisers one user is most likely to act on.

    Attributes:
        advertisers: Most probable first.
        exact: Whether these are certified to be the catalogue's most probable advertisers.
        missing_mass: Upper bound on the probability of all advertisers not shown, in [0, 1].
        bundle_id: The bundle that answered.
    """

    advertisers: tuple[Advertiser, ...]
    exact: bool
    missing_mass: float
    bundle_id: str

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``adprior predict --json`` prints."""
        return {
            "advertisers": [advertiser.to_json() for advertiser in self.advertisers],
            "exact": self.exact,
            "missing_mass": self.missing_mass,
            "bundle_id": self.bundle_id,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedCandidate:
    """One ad candidate with the prior added to its logit.

    Attributes:
        advertiser_id: The candidate's advertiser, as asked.
        base_logit: The ranker's own logit, as asked.
        adjusted_logit: The logit with the prior; equal to ``base_logit`` off the catalogue.
        log_prob: Log-probability of the advertiser or its upper bound (natural log; ``-inf`` for
            no chance at all), None off the catalogue.
        status: What ``log_prob`` is.
    """

    advertiser_id: int
    base_logit: float
    adjusted_logit: float
    log_prob: float | None
    status: CandidateStatusName

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of this candidate; ``-inf``, which JSON has not, becomes null."""
        known = self.log_prob is not None and math.isfinite(self.log_prob)
        return {
            "advertiser_id": self.advertiser_id,
            "base_logit": self.base_logit,
            "adjusted_logit": self.adjusted_logit,
            "log_prob": self.log_prob if known else None,
            "status": self.status,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Candidates with adjusted logits, in the order they were given.

    Attributes:
        candidates: One for each candidate asked about, duplicates included.
        bundle_id: The bundle that answered; empty when there was nothing to ask.
        exact: Whether the forecast behind the ranking is certified; None when there was none.
    """

    candidates: tuple[RankedCandidate, ...]
    bundle_id: str
    exact: bool | None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``adprior rank --json`` prints."""
        return {
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "bundle_id": self.bundle_id,
        }
