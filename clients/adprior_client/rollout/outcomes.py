"""Compares how well both bundles' probabilities fit the outcomes, from a log of rankings.

The log has the rows of `adprior_client.results.Ranking.to_log`, with the outcome joined as
``label``. A bundle is calibrated if as many candidates had the outcome as its adjusted logits let
expect: the ratio of observed to expected outcomes is 1. Its interval is the exact one of a Poisson
count (F. Garwood, Biometrika 28, 1936), since outcomes are rare; a row counts as independent.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from scipy.stats import chi2

from adprior_client.rollout.comparison import Figure
from adprior_client.stored.parquet_files import list_forecast_files
from adprior_runtime.errors import InvalidInputError

COLUMNS: Final = ("bundle_id", "adjusted_logit", "label")
_log = logging.getLogger("adprior_client")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """The outcomes of one bundle's rankings.

    Attributes:
        observed: Candidates with the outcome.
        expected: Their number by the adjusted logits.
    """

    observed: int = 0
    expected: float = 0.0

    def __add__(self, other: Outcomes) -> Outcomes:
        return Outcomes(
            observed=self.observed + other.observed, expected=self.expected + other.expected
        )


class OutcomeLog:
    """A log that grows, read again when its files have changed.

    Args:
        path: A Parquet file, or a directory of them.

    Raises:
        InvalidInputError: The log cannot be read, lacks a column, or has an impossible value.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: Sequence[tuple[str, int, int]] = ()
        self._found: dict[str, Outcomes] = {}
        self._problem = ""
        self._update()

    def read(self, stable: str, canary: str) -> tuple[Outcomes, Outcomes]:
        """Return the outcomes of two bundles, by their ids.

        A log that cannot be read now, or is half-written, keeps its last outcomes.
        """
        try:
            self._update()
            self._problem = ""
        except (InvalidInputError, OSError) as error:
            if self._problem != str(error):
                _log.warning("adprior rollout: the outcomes read before stay: %s", error)
            self._problem = str(error)
        return self._found.get(stable, Outcomes()), self._found.get(canary, Outcomes())

    def _update(self) -> None:
        files = list_forecast_files(self._path).files
        state = [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files]
        if state != self._state:
            self._found = self._sum(files)
            self._state = state

    def _sum(self, files: Sequence[Path]) -> dict[str, Outcomes]:
        try:
            import pyarrow as pa  # noqa: PLC0415  optional
            import pyarrow.dataset as ds  # noqa: PLC0415
        except ImportError as error:
            raise InvalidInputError(
                f"{self._path}: reading Parquet needs pyarrow: pip install 'adprior[parquet]'"
            ) from error
        found: dict[str, Outcomes] = {}
        try:
            dataset = ds.dataset([str(file) for file in files], format="parquet")
            if missing := [name for name in COLUMNS if name not in dataset.schema.names]:
                listed = ", ".join(dataset.schema.names)
                raise InvalidInputError(
                    f"{self._path}: no column {', '.join(missing)}; found {listed}"
                )
            for batch in dataset.to_batches(columns=list(COLUMNS)):
                for bundle_id, outcomes in self._of_batch(batch).items():
                    found[bundle_id] = found.get(bundle_id, Outcomes()) + outcomes
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise InvalidInputError(f"{self._path}: not a log in Parquet: {reason}") from error
        return found

    def _of_batch(self, batch: Any) -> dict[str, Outcomes]:
        """Add up one batch; rows without a bundle or without an outcome yet are left out."""
        batch = batch.drop_null()
        bundles = np.asarray(batch["bundle_id"].to_pylist(), dtype=np.str_)
        logits, labels = (
            np.asarray(batch[name].cast("float64").to_numpy(zero_copy_only=False))
            for name in COLUMNS[1:]
        )
        self._refuse("adjusted_logit", logits, ~np.isfinite(logits), "a finite number")
        self._refuse("label", labels, ~np.isin(labels, (0.0, 1.0)), "0 or 1")
        expected = expit(logits)
        return {
            str(bundle_id): Outcomes(
                observed=int(labels[bundles == bundle_id].sum()),
                expected=float(expected[bundles == bundle_id].sum()),
            )
            for bundle_id in np.unique(bundles)
        }

    def _refuse(
        self,
        name: str,
        values: npt.NDArray[np.float64],
        bad: npt.NDArray[np.bool_],
        expected: str,
    ) -> None:
        if bad.any():
            raise InvalidInputError(
                f"{self._path}: {name}: found {values[bad][0]:g}, expected {expected}"
            )


def compare_calibration(stable: Outcomes, canary: Outcomes, level: float) -> Figure:
    """Compare how far the expected outcomes are from the observed ones; the ratio of both.

    2 means that the canary is off by twice the factor: the stable bundle by 1.1, say, and the
    canary by 2.2, too high or too low. Each group's interval has half of the error that ``level``
    allows (Bonferroni), so the ends of the ratio follow from the ends of both.
    """
    if not stable.expected or not canary.expected:
        return Figure(
            stable=_ratio(stable),
            canary=_ratio(canary),
            compared=math.nan,
            low=math.nan,
            high=math.nan,
        )
    each = (1 + level) / 2
    (s, s_low, s_high), (c, c_low, c_high) = (
        _distances(outcomes, each) for outcomes in (stable, canary)
    )
    with np.errstate(over="ignore", invalid="ignore"):
        compared, low, high = np.exp([c - s, c_low - s_high, c_high - s_low])
    return Figure(
        stable=_ratio(stable),
        canary=_ratio(canary),
        compared=float(compared),
        low=float(low),
        high=float(high),
    )


def _ratio(outcomes: Outcomes) -> float:
    return outcomes.observed / outcomes.expected if outcomes.expected else math.nan


def _distances(outcomes: Outcomes, level: float) -> tuple[float, float, float]:
    """Return |log(observed / expected)| and its interval, whose upper end may be infinite."""
    tail = (1 - level) / 2
    low = chi2.ppf(tail, 2 * outcomes.observed) / 2 if outcomes.observed else 0.0
    high = chi2.isf(tail, 2 * outcomes.observed + 2) / 2
    with np.errstate(divide="ignore"):
        middle, low, high = np.log(np.array([outcomes.observed, low, high]) / outcomes.expected)
    least = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return abs(middle), least, max(abs(low), abs(high))
