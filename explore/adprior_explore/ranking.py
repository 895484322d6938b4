"""The view of a ranking: candidates before and after, and with a stored forecast."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adprior_client import Forecast, ForecastSource, InvalidArgumentError, Ranking
from adprior_client.cli.documents import candidates_of, forecast_of
from adprior_client.cli.json_document import JsonValue
from adprior_explore.server.documents import with_integer_ids
from adprior_explore.side import Side
from adprior_explore.subject import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredForecast:
    """An older forecast to rank with.

    Attributes:
        forecast: The forecast.
        source: ``page`` if the page kept it, ``store`` if ``--stored`` has it.
    """

    forecast: Forecast
    source: str

    def to_json(self) -> dict[str, Any]:
        """Return where it comes from, as a JSON object."""
        forecast = self.forecast
        return {"source": self.source, "age_s": forecast.age_s, "bundle_id": forecast.bundle_id}


async def find_stored(document: JsonValue, store: ForecastSource | None) -> StoredForecast | None:
    """Return the stored forecast that a request names; None if it names none, or none is found."""
    given, user_id = document.get("stored_forecast"), document.get("user_id")
    if given is not None:
        return StoredForecast(forecast=forecast_of(with_integer_ids(given)), source="page")
    if user_id is None or store is None:
        return None
    found = await asyncio.to_thread(store.find, user_id.of_type(str))
    return None if found is None else StoredForecast(forecast=found, source="store")


async def show_ranking(
    side: Side, subject: Subject, candidates: JsonValue, stored: StoredForecast | None
) -> dict[str, Any]:
    """Rank a user's candidates with a live forecast, and with a stored one.

    Args:
        side: The server.
        subject: The user.
        candidates: A list of ``advertiser_id`` and ``base_logit``.
        stored: The forecast to compare with.
    """
    start = time.perf_counter()
    ids, logits = candidates_of(with_integer_ids(candidates))
    if not ids:
        raise InvalidArgumentError("candidates: found none, expected at least one")
    live = await side.ranking.score(subject.raw, ids, logits)
    kept = None
    if stored is not None:
        kept = await side.ranking.score(stored.forecast, ids, logits)
    side.note_bundle(*(ranking.bundle_id for ranking in (live, kept) if ranking is not None))
    rows = _rows(live)
    before = _places(live.base_logits)
    kept_rows: Sequence[dict[str, Any] | None] = [None] * len(rows) if kept is None else _rows(kept)
    return {
        "candidates": [
            {
                **row,
                "name": side.name_of(row["advertiser_id"]),
                "rank_before": before[place],
                "stored": None if older is None else _without_base(older),
            }
            for place, (row, older) in enumerate(zip(rows, kept_rows, strict=True))
        ],
        "has_fitted_head": live.has_fitted_head,
        "bundle_id": live.bundle_id,
        "forecast": _forecast_of(live, side),
        "stored_forecast": None if stored is None else stored.to_json(),
        "total_ms": 1e3 * (time.perf_counter() - start),
    }


def _rows(ranking: Ranking) -> list[dict[str, Any]]:
    after = _places(ranking.adjusted_logits)
    return [
        item.to_json()
        | {"contribution": item.adjusted_logit - item.base_logit, "rank_after": after[place]}
        for place, item in enumerate(ranking.candidates)
    ]


def _without_base(row: dict[str, Any]) -> dict[str, Any]:
    names = ("adjusted_logit", "contribution", "log_prob", "status", "rank_after")
    return {name: row[name] for name in names}


def _places(logits: NDArray[np.float64]) -> list[int]:
    """Return each candidate's place, 1 for the largest logit; equal ones keep their order."""
    places = np.empty(logits.size, dtype=np.int64)
    places[np.argsort(-logits, kind="stable")] = np.arange(1, logits.size + 1)
    found: list[int] = places.tolist()
    return found


def _forecast_of(ranking: Ranking, side: Side) -> dict[str, Any] | None:
    """Return the forecast behind a ranking, as `find_stored` takes it back."""
    forecast = ranking.forecast
    if forecast is None:
        return None
    named = replace(forecast, advertisers=side.with_names(forecast.advertisers))
    return named.to_json()
