"""Forecasts without a server: each worker loads the bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from adprior_bulk.run.user_forecaster import (
    Answer,
    Forecasted,
    ForecasterSettings,
    Refused,
    Task,
    UserForecaster,
)
from adprior_runtime.engines.registry import ENGINES
from adprior_runtime.errors import DeviceLostError
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.forecast.interests import Interests


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleSettings(ForecasterSettings):
    """A bundle to forecast with.

    Attributes:
        bundle: Its directory, the same on every node.
        top_k: Advertisers per forecast; None for the bundle's default.
        interest_k: Interests per forecast; None for none.
        device: ``cpu``, or ``cuda`` with a GPU for each worker.
    """

    name: ClassVar[str] = "in-process"
    bundle: Path
    top_k: int | None
    interest_k: int | None = None
    device: str = "cpu"

    @property
    def gpus(self) -> int:
        """See `ForecasterSettings`."""
        return 0 if self.device == "cpu" else 1

    def open(self) -> UserForecaster:
        """Load the bundle."""
        return _BundleForecaster(self)


class _BundleForecaster(UserForecaster):
    """Runs prompts in order of length: one at a time, or many if the engine joins their passes."""

    def __init__(self, settings: BundleSettings) -> None:
        # Each worker has one core.
        self._forecaster = Forecaster(settings.bundle, threads=1, device=settings.device)
        self._top_k, self._interest_k = settings.top_k, settings.interest_k
        self._joins_users = ENGINES[self._forecaster.bundle.manifest.engine].joins_users

    def forecast(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Answer]]:
        prompts: list[tuple[int, list[int]]] = []
        for place, task in enumerate(tasks):
            try:
                prompts.append((place, self._forecaster.prompt_ids(task.context)))
            except Exception as error:  # noqa: BLE001  one user's failure must not stop the others
                yield task, Refused.of(error)
        answers: list[tuple[Task, Answer]] = []
        lost: list[DeviceLostError] = []

        def search(place: int, prompt: list[int]) -> None:
            try:
                answers.append((tasks[place], self._answer(prompt)))
            except DeviceLostError as error:
                lost.append(error)

        prompts.sort(key=lambda item: len(item[1]))
        self._run([partial(search, *item) for item in prompts])
        if lost:
            raise lost[0]
        yield from answers

    def _run(self, searches: Sequence[Callable[[], None]]) -> None:
        if self._joins_users:
            from adprior_runtime.engines.pass_loop import PassLoop  # noqa: PLC0415  greenlet

            PassLoop().run(searches)
        else:
            for search in searches:
                search()

    def close(self) -> None:
        pass

    def _answer(self, prompt: list[int]) -> Answer:
        try:
            interests = Interests.none()
            if self._interest_k is None:
                found = self._forecaster.forecast_prompt(prompt, self._top_k)
            else:
                found, interests = self._forecaster.forecast_interests(
                    prompt, self._top_k, self._interest_k
                )
        except DeviceLostError:  # it would fail for every user
            raise
        except Exception as error:  # noqa: BLE001  one user's failure must not stop the others
            return Refused.of(error)
        # Rounding may exceed the bounds; clients clamp served answers in the same way.
        return Forecasted(
            advertiser_ids=found.advertiser_ids.tolist(),
            log_probs=np.minimum(found.log_probs, 0).tolist(),
            exact=found.exact,
            missing_mass=min(max(float(found.missing_mass), 0.0), 1.0),
            bundle_id=self._forecaster.bundle.manifest.bundle_id,
            interest_ids=interests.ids.tolist(),
            interest_log_probs=interests.log_probs.tolist(),
        )
