"""Results of the clients, as immutable values.

A result says where it comes from (``source``, ``age_s``, ``bundle_id``, ``request_id``) and, if it
is not the live answer, why (``reason``).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from adprior_client.display import describe, to_frame, to_html
from adprior_client.types import Reason, Source, UserId

CandidateStatusName: TypeAlias = Literal["exact", "upper_bound", "not_in_catalogue", "unknown"]

NO_ANSWER: Final = 3
"""The status without an answer; the others are in `adprior_runtime.contract.CandidateStatus`."""

_STATUS_NAMES: Final[tuple[CandidateStatusName, ...]] = (
    "exact",
    "upper_bound",
    "not_in_catalogue",
    "unknown",
)


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
        return asdict(self) | {"probability": self.probability}


@dataclass(frozen=True, slots=True, kw_only=True)
class Interest:
    """One interest (a category, say); ``log_prob`` is the natural log of its probability."""

    interest_id: int
    name: str
    log_prob: float

    @property
    def probability(self) -> float:
        """The probability, in [0, 1]."""
        return min(math.exp(self.log_prob), 1.0)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of this interest."""
        return asdict(self) | {"probability": self.probability}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Forecast:
    """The advertisers one user is most likely to act on.

    Attributes:
        advertisers: Most probable first; empty without a forecast, and in shadow mode.
        exact: Whether these are certified to be the catalogue's most probable advertisers.
        missing_mass: Upper bound on the probability of all other advertisers, in [0, 1].
        bundle_id: The bundle that answered; empty without an answer.
        source: Where the forecast comes from.
        made_at: When it was made, with a time zone; None if that is unknown.
        reason: Why it is not the live answer; None if it is.
        request_id: Id of the call.
        withheld: In shadow mode, what ``advertisers`` would have been.
        interests: Most probable first, of a live forecast that asked for them; empty if the bundle
            has none, and in shadow mode.
    """

    advertisers: tuple[Advertiser, ...]
    exact: bool
    missing_mass: float
    bundle_id: str
    source: Source = Source.CALLER
    made_at: datetime | None = None
    reason: Reason | None = None
    request_id: str = ""
    withheld: tuple[Advertiser, ...] = ()
    interests: tuple[Interest, ...] = ()

    @classmethod
    def none(cls, reason: Reason, request_id: str = "") -> Forecast:
        """Return an empty forecast: nothing is known about the user."""
        return cls(
            advertisers=(),
            exact=False,
            missing_mass=1.0,
            bundle_id="",
            source=Source.NONE,
            reason=reason,
            request_id=request_id,
        )

    @property
    def age_s(self) -> float | None:
        """Seconds since it was made; never negative, even if clocks differ."""
        if self.made_at is None:
            return None
        return max((datetime.now(UTC) - self.made_at).total_seconds(), 0.0)

    @property
    def predicted(self) -> tuple[Advertiser, ...]:
        """The advertisers, or those withheld in shadow mode."""
        return self.advertisers or self.withheld

    def __repr__(self) -> str:
        return describe(self)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return to_html(self)

    def to_pandas(self) -> Any:
        """Return a data frame: ``advertiser_id``, ``name``, ``probability``, ``log_prob``.

        ``attrs`` holds ``exact``, ``missing_mass``, ``bundle_id``, ``source`` and ``reason``. An
        empty forecast gives no rows, and a warning that says why.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        return to_frame(self)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``adprior predict --json`` prints."""
        interests = {"interests": [item.to_json() for item in self.interests]}
        return {
            "advertisers": [advertiser.to_json() for advertiser in self.advertisers],
            "exact": self.exact,
            "missing_mass": self.missing_mass,
            "bundle_id": self.bundle_id,
            **(interests if self.interests else {}),
        }

    def to_log(self, *, user_id: UserId) -> dict[str, Any]:
        """Return a row of a forecast log, which `ParquetForecasts` reads."""
        return {
            "user_id": user_id,
            "as_of": self.made_at,
            "advertiser_ids": [item.advertiser_id for item in self.predicted],
            "advertiser_names": [item.name for item in self.predicted],
            "log_probs": [item.log_prob for item in self.predicted],
            "exact": self.exact,
            "missing_mass": self.missing_mass,
            "bundle_id": self.bundle_id,
            "source": str(self.source),
            "age_s": self.age_s,
            "reason": self.reason,
            "request_id": self.request_id,
            "applied": bool(self.advertisers),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedCandidate:
    """One ad candidate with the prior added to its logit.

    Attributes:
        advertiser_id: The candidate's advertiser.
        base_logit: The ranker's own logit.
        adjusted_logit: The logit with the prior; equal to ``base_logit`` without a prior.
        log_prob: Natural log of the advertiser's probability, or an upper bound (``-inf`` for
            probability 0); None if it is not in the catalogue, and without an answer.
        status: Whether ``log_prob`` is exact, an upper bound or missing.
    """

    advertiser_id: int
    base_logit: float
    adjusted_logit: float
    log_prob: float | None
    status: CandidateStatusName

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of this candidate; ``-inf``, which JSON lacks, becomes null."""
        is_finite = self.log_prob is not None and math.isfinite(self.log_prob)
        return asdict(self) | {"log_prob": self.log_prob if is_finite else None}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranking:
    """Candidates with adjusted logits, in the order they were given, as columns (read-only).

    Attributes:
        logits: float64 [n], to rank with: ``adjusted_logits``, or ``base_logits`` in shadow mode
            and without an answer.
        advertiser_ids: int64 [n], the candidates.
        base_logits: float64 [n], the caller's, to the last bit.
        adjusted_logits: float64 [n], with the prior.
        log_probs: float32 [n], each advertiser's, or an upper bound; NaN if unknown.
        statuses: uint8 [n], the kind of each log-probability:
            `adprior_runtime.contract.CandidateStatus`, or 3 without an answer.
        forecast: The forecast behind the ranking.
        bundle_id: The bundle that answered; empty without an answer.
        source: Where the forecast comes from.
        age_s: Age of the forecast at the time of the ranking; None if unknown.
        reason: Why this is not a live answer that is applied; None if it is.
        request_id: Id of the call.
        treatment: Whether the user is treated, as the caller said.
        applied: Whether ``logits`` include the prior.
        has_fitted_head: Whether the bundle has a fitted head; without one every adjustment is 0.
            None without an answer.
    """

    logits: npt.NDArray[np.float64]
    advertiser_ids: npt.NDArray[np.int64]
    base_logits: npt.NDArray[np.float64]
    adjusted_logits: npt.NDArray[np.float64]
    log_probs: npt.NDArray[np.float32]
    statuses: npt.NDArray[np.uint8]
    forecast: Forecast | None
    bundle_id: str
    source: Source
    age_s: float | None
    reason: Reason | None
    request_id: str
    treatment: bool
    applied: bool
    has_fitted_head: bool | None = None

    def __post_init__(self) -> None:
        """Make the columns read-only: some share memory, and a logged ranking must not change."""
        self.logits.setflags(write=False)
        for column in self._columns:
            column.setflags(write=False)

    @property
    def _columns(self) -> tuple[npt.NDArray[Any], ...]:
        """The fields of `RankedCandidate`, in their order."""
        return (
            self.advertiser_ids,
            self.base_logits,
            self.adjusted_logits,
            self.log_probs,
            self.statuses,
        )

    @property
    def exact(self) -> bool | None:
        """Whether the forecast behind the ranking is certified; None without a forecast."""
        return None if self.forecast is None else self.forecast.exact

    @property
    def candidates(self) -> tuple[RankedCandidate, ...]:
        """One object per candidate, duplicates included, in the order given."""
        return tuple(
            RankedCandidate(
                advertiser_id=advertiser_id,
                base_logit=base,
                adjusted_logit=adjusted,
                log_prob=None if math.isnan(log_prob) else log_prob,
                status=_STATUS_NAMES[status],
            )
            for advertiser_id, base, adjusted, log_prob, status in zip(
                *(column.tolist() for column in self._columns), strict=True
            )
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``adprior rank --json`` prints."""
        return {
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "bundle_id": self.bundle_id,
            "has_fitted_head": self.has_fitted_head,
        }

    def to_log(self, *, request: UserId) -> list[dict[str, Any]]:
        """Return rows of a ranking log, which ``adprior fit-head`` reads with labels joined.

        Args:
            request: Id of the ranking request, column ``request``, by which labels are joined.
        """
        shown = () if self.forecast is None else self.forecast.predicted
        about = {
            "request": request,
            "forecast_advertiser_ids": [item.advertiser_id for item in shown] or None,
            "forecast_log_probs": [item.log_prob for item in shown] or None,
            "missing_mass": self.forecast.missing_mass if shown and self.forecast else None,
            "exact": self.exact,
            "bundle_id": self.bundle_id or None,
            "source": str(self.source),
            "age_s": self.age_s,
            "reason": self.reason,
            "request_id": self.request_id,
            "treatment": self.treatment,
            "applied": self.applied,
        }
        return [
            about | candidate.to_json() | {"logit": logit}
            for candidate, logit in zip(self.candidates, self.logits.tolist(), strict=True)
        ]
