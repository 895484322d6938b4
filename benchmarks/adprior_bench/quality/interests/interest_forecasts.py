"""The model's forecasts of interests, for the section on interests and for stacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.forecasts import Pair
from adprior_bench.quality.metrics import Float32Array
from adprior_build.catalogue.catalogue_file import Catalogue
from adprior_runtime.prompt.template import in_words

_LEAST: Final = 1e-9
"""Lower bound of probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InterestForecasts:
    """Forecasts of a study's cases.

    Attributes:
        catalogue: The bundle's interests.
        validation: float32 [validation cases, interests].
        test: float32 [test cases, interests].
    """

    catalogue: Catalogue
    validation: Float32Array
    test: Float32Array

    def of_advertisers(self, categories: Sequence[str | None]) -> Pair:
        """Return the log-probabilities of advertisers' categories, float32 [cases, advertisers].

        A category that was not found, or is no interest, gets the lowest one found in the case: it
        has at most that.

        Args:
            categories: Each advertiser's; None without one.

        Returns:
            Those of the validation and of the test cases.
        """
        row_of = self.catalogue.rows_by_name()
        rows = [row_of(in_words(name)) if name else None for name in categories]
        places = np.array([-1 if row is None else row for row in rows], dtype=np.int64)
        test = _of_places(self.test, places)
        is_same = self.test is self.validation
        return (test if is_same else _of_places(self.validation, places)), test


def _of_places(probabilities: Float32Array, places: npt.NDArray[np.int64]) -> Float32Array:
    lowest = np.where(probabilities > 0, probabilities, np.inf).min(axis=1, keepdims=True)
    floors = np.log(np.clip(lowest, _LEAST, 1))
    logs = np.log(np.maximum(probabilities, np.float32(_LEAST)))
    found = np.where(probabilities > 0, logs, floors)
    of_advertisers: Float32Array = np.where(places >= 0, found[:, places], floors)
    return of_advertisers.astype(np.float32)
