"""The language model's forecasts as probability matrices, made by several searches at once.

A search gives the most probable advertisers exactly, and an upper bound for every other one: the
probability of the prefix at which it stopped. The remaining probability is distributed over the
others in proportion to their bounds, so that the model is measured like a baseline that has a
probability for each advertiser.

One reading of the prompt serves all measures: the search finds the bundle's number of advertisers,
goes on until it has found `NEW_K` that the user has not acted on, and finds `INTEREST_K` interests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from queue import SimpleQueue
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime

from adprior_bench.data.kept_results import Arrays, KeptResults, key_of
from adprior_bench.quality.cohorts import BoolArray
from adprior_bench.quality.histories import EncodedCase, Float64Array
from adprior_bench.quality.metrics import Float32Array
from adprior_bench.quality.study import Study
from adprior_build.catalogue.catalogue_file import Catalogue, read_catalogue
from adprior_runtime import __version__
from adprior_runtime.bundle import INTERESTS_FILE
from adprior_runtime.forecast.forecaster import CatalogueForecast, Forecaster
from adprior_runtime.prompt.context import UserContext
from adprior_runtime.terminal.progress import track

NEW_K: Final = 50
"""Number of advertisers new to the user that each forecast proves."""
INTEREST_K: Final = 20
"""Number of interests that are searched; the others count as 0."""

Alteration = Callable[[UserContext], UserContext]
_Ids: TypeAlias = npt.NDArray[np.int64]
_Job: TypeAlias = tuple[_Ids, _Ids, _Ids, _Ids]
"""A prompt's tokens; ids of advertisers: acted on by the user, and excluded; ids of all interests,
none if they are not searched."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelForecasts:
    """Forecasts of cases.

    Attributes:
        probabilities: float32 [cases, advertisers], rows with a sum of at most 1.
        exact: bool [cases, 2], whether the most probable advertisers are proved: all, new ones.
        interests: float32 [cases, interests], 0 beyond the `INTEREST_K` most probable ones; without
            interests, float32 [cases, 0].
    """

    probabilities: Float32Array
    exact: npt.NDArray[np.bool_]
    interests: Float32Array


def forecast_identity(bundle_id: str, threads: int = 1) -> dict[str, Any]:
    """Return everything that a forecast depends on, apart from its prompt, for `keep_results`."""
    return {
        "bundle_id": bundle_id,
        "threads": threads,
        "adprior_version": __version__,
        "onnxruntime_version": onnxruntime.__version__,
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class LanguageModel:
    """Makes a bundle's forecasts.

    Attributes:
        forecasters: Of the bundle, each with one thread, so that every one computes the same.
        kept: Forecasts of an earlier run of this bundle, by prompt; new ones are added.
    """

    forecasters: Sequence[Forecaster]
    kept: KeptResults = field(default_factory=lambda: KeptResults(None))

    @property
    def forecaster(self) -> Forecaster:
        """The first one."""
        return self.forecasters[0]

    @cached_property
    def interests(self) -> Catalogue | None:
        """The bundle's interests; None if it has none."""
        bundle = self.forecaster.bundle
        if not bundle.has_interests:
            return None
        return read_catalogue(bundle.path(INTERESTS_FILE), "interest")

    def forecast_groups(
        self, study: Study, *, with_interests: bool
    ) -> tuple[ModelForecasts, ModelForecasts]:
        """Forecast the validation cases and the test cases, which may be the same."""

        def forecast(cases: Sequence[EncodedCase], whose: str) -> ModelForecasts:
            title = f"forecasts, {whose} users"
            return self.forecast(study, cases, with_interests=with_interests, title=title)

        validation = forecast(study.validation, "validation")
        is_same = study.test is study.validation
        return validation, validation if is_same else forecast(study.test, "test")

    def forecast(
        self,
        study: Study,
        cases: Sequence[EncodedCase],
        *,
        alter: Alteration | None = None,
        among: BoolArray | None = None,
        with_interests: bool = False,
        title: str = "forecasts",
    ) -> ModelForecasts:
        """Forecast cases.

        Args:
            study: Has the users' histories.
            cases: The cases.
            alter: Changes the contexts, for ablations.
            among: bool [advertisers], the only ones that are searched; None for all.
            with_interests: Search the bundle's interests too, if it has any.
            title: Of the progress bar.
        """
        ids = self.forecaster.advertisers.ids
        excluded = ids[:0] if among is None else ids[~among]
        listed = self.interests if with_interests else None
        interest_ids = np.array([] if listed is None else listed.ids, dtype=np.int64)
        jobs = [(*self._prompt(study, case, alter), excluded, interest_ids) for case in cases]
        rows = self._compute_all(jobs, title)
        return ModelForecasts(
            probabilities=np.stack([arrays["row"] for arrays in rows]),
            exact=np.stack([arrays["exact"] for arrays in rows]),
            interests=np.stack([arrays["interests"] for arrays in rows]),
        )

    def _compute_all(self, jobs: Sequence[_Job], title: str) -> list[Arrays]:
        """Return the result of each job, kept or computed."""
        kind = f"catalogue {NEW_K}, interests {INTEREST_K}"
        keys = [key_of(kind, *(part.tobytes() for part in job)) for job in jobs]
        found = {key: self.kept.get(key) for key in keys}
        missing = {key: job for key, job in zip(keys, jobs, strict=True) if found[key] is None}
        results = self._forecast_all(list(missing.values()))
        shown = track(results, total=len(missing), unit="forecast", desc=title)
        for key, result in zip(missing, shown, strict=True):
            self.kept.put(key, result)
            found[key] = result
        return [arrays for key in keys if (arrays := found[key]) is not None]

    def _forecast_all(self, jobs: Sequence[_Job]) -> Iterator[Arrays]:
        """Yield the result of each job, in order; each forecaster does one job at a time."""
        if len(self.forecasters) == 1:
            yield from (_forecast(self.forecaster, job) for job in jobs)
            return
        idle: SimpleQueue[Forecaster] = SimpleQueue()
        for forecaster in self.forecasters:
            idle.put(forecaster)

        def run(job: _Job) -> Arrays:
            forecaster = idle.get()
            try:
                return _forecast(forecaster, job)
            finally:
                idle.put(forecaster)

        pool = ThreadPoolExecutor(len(self.forecasters))
        try:
            yield from pool.map(run, jobs)
        finally:
            pool.shutdown(cancel_futures=True)

    def _prompt(
        self, study: Study, case: EncodedCase, alter: Alteration | None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        context = study.context(case)
        prompt = self.forecaster.prompt_ids(context if alter is None else alter(context))
        known = self.forecaster.advertisers.ids[np.unique(case.past[0])]
        return np.asarray(prompt, dtype=np.int64), known


def _forecast(forecaster: Forecaster, job: _Job) -> Arrays:
    """Return one forecast: the arrays of `ModelForecasts` for one case, by name.

    ``row`` is float32 [advertisers], ``exact`` bool [2], ``interests`` float32 [interests].
    """
    prompt, known, excluded, interest_ids = job
    found = forecaster.forecast_catalogue(
        prompt.tolist(),
        known_ids=known,
        new_k=NEW_K,
        excluded_ids=excluded,
        interest_top_k=INTEREST_K if len(interest_ids) else 0,
    )
    interests = np.zeros(len(interest_ids), dtype=np.float32)
    places = np.searchsorted(interest_ids, found.interests.ids)
    interests[places] = np.exp(found.interests.log_probs)
    return {
        "row": _probabilities(found).astype(np.float32),
        "exact": np.array([found.exact, found.new_exact]),
        "interests": interests,
    }


def _probabilities(found: CatalogueForecast) -> Float64Array:
    probabilities: Float64Array = np.exp(found.log_probs)
    rest = ~found.resolved
    left = max(0.0, min(found.unresolved_mass, 1 - probabilities[found.resolved].sum()))
    probabilities[rest] *= min(1.0, left / max(probabilities[rest].sum(), 1e-12))
    return probabilities
