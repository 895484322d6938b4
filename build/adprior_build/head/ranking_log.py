"""Ranking logs: shown candidates with the ranker's logit, the outcome and the forecast used.

One row per candidate: ``request``, ``advertiser_id``, ``base_logit``, ``label`` (0 or 1) and the
forecast (``forecast_advertiser_ids``, ``forecast_log_probs``, ``missing_mass``; null or empty
without one). Optional: the forecast's certificate ``exact``, its ``bundle_id``, and, as a live
ranking returns them, each candidate's own ``log_prob`` and ``status`` (``exact`` or a bound).
`adprior_client.Ranking.to_log` writes such rows without the labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from adprior_build.data.number_columns import (
    Ragged,
    cast_column,
    hash_requests,
    read_numbers,
    refuse_rows,
)
from adprior_build.data.tables import read_table
from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, Bundle
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.contract import CandidateStatus
from adprior_runtime.errors import InvalidInputError, InvalidRequestError
from adprior_runtime.head.features import (
    FEATURE_NAMES,
    KnownForecast,
    candidate_priors,
    validate_head_request,
)

ORIGIN_KEY: Final = "adprior"
"""Key of a simulated log's Parquet metadata: what the log was made from, as JSON."""

COLUMNS: Final = (
    "request",
    "advertiser_id",
    "base_logit",
    "label",
    "forecast_advertiser_ids",
    "forecast_log_probs",
    "missing_mass",
)
"""The required columns."""


_Rows: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankingRows:
    """The rows of a log that have a prior, on which a head can be fitted.

    Attributes:
        requests: uint64 [m], a hash of the request, the same in every run.
        features: float32 [m, 6], columns as in `FEATURE_NAMES`.
        base_logits: float32 [m].
        labels: float64 [m], 0 or 1.
        total: Number of rows in the log, including those left out.
        of_other_bundles: Left out: made with another bundle.
        of_no_bundle: Rows that do not name their bundle, assumed to be this one.
        is_of_other_log: Whether it was simulated from a log that the bundle was not trained on.
        without_forecast: Left out: without a forecast.
        off_catalogue: Left out: with a forecast, but the advertiser is not in the catalogue.
    """

    requests: npt.NDArray[np.uint64]
    features: npt.NDArray[np.float32]
    base_logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float64]
    total: int
    of_other_bundles: int
    of_no_bundle: int
    is_of_other_log: bool
    without_forecast: int
    off_catalogue: int


def read_ranking_log(path: Path, bundle: Bundle) -> RankingRows:
    """Read a log and compute its features with the function that serving uses.

    Raises:
        InvalidInputError: A column is missing, a value is impossible (the message names the row),
            the log was made with another bundle, its forecasts are longer than the bundle's, or no
            row has a forecast.
    """
    whole = read_table(path, COLUMNS)
    table = _of_bundle(path, whole, bundle)
    base_logits = read_numbers(path, table, "base_logit", pa.float64())
    with np.errstate(over="ignore"):
        base_logits = base_logits.astype(np.float32)
    refuse_rows(path, "base_logit", ~np.isfinite(base_logits), "expected a finite FP32 number")
    labels = read_numbers(path, table, "label", pa.float64())
    refuse_rows(path, "label", ~np.isin(labels, (0.0, 1.0)), "expected 0 or 1")
    requests = hash_requests(path, table)
    groups = list(_group_by_forecast(path, table))
    if not groups:
        raise InvalidInputError(f"{path}: no row of {table.num_rows} has a forecast to learn from")
    features, known = _compute_features(path, table, groups, bundle)
    with_forecast = sum(len(rows) for rows, _ in groups)
    return RankingRows(
        requests=requests[known],
        features=features[known],
        base_logits=base_logits[known],
        labels=labels[known],
        total=whole.num_rows,
        of_other_bundles=whole.num_rows - table.num_rows,
        of_no_bundle=(
            table["bundle_id"].null_count if "bundle_id" in table.column_names else table.num_rows
        ),
        is_of_other_log=_origin(whole).get("is_training_log") is False,
        without_forecast=table.num_rows - with_forecast,
        off_catalogue=with_forecast - int(known.sum()),
    )


def _group_by_forecast(path: Path, table: pa.Table) -> Iterator[tuple[_Rows, KnownForecast]]:
    """Yield every distinct forecast with its rows."""
    ids = Ragged.read(path, table, "forecast_advertiser_ids", pa.int64())
    log_probs = Ragged.read(path, table, "forecast_log_probs", pa.float32())
    unequal = ids.lengths() != log_probs.lengths()
    refuse_rows(path, "forecast_log_probs", unequal, "expected one for each advertiser id")
    masses = cast_column(path, table, "missing_mass", pa.float64()).to_numpy(zero_copy_only=False)
    exact = np.zeros(table.num_rows, dtype=np.bool_)
    if "exact" in table.column_names:
        known = cast_column(path, table, "exact", pa.bool_()).fill_null(False)
        exact = known.to_numpy(zero_copy_only=False)
    groups: dict[tuple[bytes, bytes, float, bool], list[int]] = {}
    for row in np.flatnonzero(ids.lengths()).tolist():
        found = (ids.row(row).tobytes(), log_probs.row(row).tobytes())
        groups.setdefault((*found, float(masses[row]), bool(exact[row])), []).append(row)
    for (_, _, mass, is_exact), rows in groups.items():
        forecast = KnownForecast(
            advertiser_ids=ids.row(rows[0]),
            log_probs=log_probs.row(rows[0]),
            missing_mass=mass,  # a null is NaN, and refused
            exact=is_exact,
        )
        yield np.array(rows, dtype=np.int64), forecast


def _compute_features(
    path: Path,
    table: pa.Table,
    groups: Sequence[tuple[_Rows, KnownForecast]],
    bundle: Bundle,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return each row's features, and whether it has a forecast and a known advertiser."""
    candidates = read_numbers(path, table, "advertiser_id", pa.int64())
    advertisers = Advertisers.load(bundle.path(ADVERTISERS_DIRECTORY))
    scores = _read_scores(path, table)
    features = np.zeros((table.num_rows, len(FEATURE_NAMES)), dtype=np.float32)
    known = np.zeros(table.num_rows, dtype=np.bool_)
    with tqdm(total=table.num_rows, unit="row", desc="adprior fit-head", disable=None) as bar:
        for rows, forecast in groups:
            _check_forecast(f"{path}: row {rows[0]} (from 0)", forecast, candidates[rows], bundle)
            own_scores = {name: values[rows] for name, values in scores.items()}
            priors = candidate_priors(
                forecast, candidates[rows], advertisers, bundle.manifest.forecast_k, **own_scores
            )
            features[rows] = priors.features
            known[rows] = priors.statuses != CandidateStatus.NOT_IN_CATALOGUE
            bar.update(len(rows))
    return features, known


def _check_forecast(
    place: str, forecast: KnownForecast, candidate_ids: npt.NDArray[np.int64], bundle: Bundle
) -> None:
    length = len(forecast.advertiser_ids)
    if length > bundle.manifest.forecast_k:
        raise InvalidInputError(
            f"{place}: a forecast of {length} advertisers, the bundle's forecasts hold "
            f"{bundle.manifest.forecast_k}; build it with --forecast-k {length}"
        )
    try:
        logits = np.zeros(len(candidate_ids), dtype=np.float32)
        validate_head_request(forecast, candidate_ids, logits)
    except InvalidRequestError as error:
        raise InvalidInputError(f"{place}: forecast's {error}") from error


def _read_scores(path: Path, table: pa.Table) -> dict[str, Any]:
    """Return every row's own log-probability and whether it is exact; empty without the columns."""
    if not {"log_prob", "status"} <= set(table.column_names):
        return {}
    status = cast_column(path, table, "status", pa.string()).to_numpy(zero_copy_only=False)
    exact = status == CandidateStatus.EXACT.name.lower()
    log_probs = cast_column(path, table, "log_prob", pa.float32()).to_numpy(zero_copy_only=False)
    # JSON writes the log of an exact 0 as null; any other null means that no bound is known.
    unknown = np.where(exact, np.float32(-np.inf), np.float32(0))
    log_probs = np.where(np.isnan(log_probs), unknown, log_probs)
    refuse_rows(path, "log_prob", log_probs > 0, "expected at most 0")
    return {"scored_log_probs": log_probs, "scored_exact": exact}


def _origin(table: pa.Table) -> dict[str, Any]:
    """Return what a simulated log was made from; empty for other logs."""
    text = (table.schema.metadata or {}).get(ORIGIN_KEY.encode())
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _of_bundle(path: Path, table: pa.Table, bundle: Bundle) -> pa.Table:
    """Return the rows of a bundle, and rows without one; during a rollout a log has two bundles."""
    if "bundle_id" not in table.column_names:
        return table
    made_with = cast_column(path, table, "bundle_id", pa.string())
    found = {value for value in made_with.unique().to_pylist() if value is not None}
    if found and bundle.manifest.bundle_id not in found:
        raise InvalidInputError(
            f"{path}: made with bundle {', '.join(sorted(found)[:3])}; "
            f"{bundle.directory} is {bundle.manifest.bundle_id}"
        )
    return table.filter(pc.fill_null(pc.equal(made_with, bundle.manifest.bundle_id), True))
