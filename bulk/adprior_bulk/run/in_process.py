"""The engine without a server: each worker holds the bundle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adprior_bulk.run.engines import Answer, Engine, EngineSettings, Forecasted, Task, refused
from adprior_runtime.forecast.forecaster import Forecaster


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcess(EngineSettings):
    """A bundle's forecasts.

    Attributes:
        bundle: Its directory, the same on every node.
        top_k: Advertisers of a forecast; None for the bundle's number.
        threads: Of one forward pass; a core for each worker is the most a node gives.
    """

    bundle: Path
    top_k: int | None
    threads: int = 1

    @property
    def name(self) -> str:
        """See `EngineSettings.name`."""
        return "in-process"

    def open(self) -> Engine:
        """See `EngineSettings.open`."""
        return InProcessEngine(self)


class InProcessEngine(Engine):
    """Prompts of like length follow one another; the embedded engine reads one at a time."""

    def __init__(self, settings: InProcess) -> None:
        self._forecaster = Forecaster(settings.bundle, threads=settings.threads)
        self._top_k = settings.top_k

    def forecast(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Answer]]:
        """See `Engine.forecast`; shortest prompts first."""
        prompts: list[tuple[int, list[int]]] = []
        for place, task in enumerate(tasks):
            try:
                prompts.append((place, self._forecaster.prompt_ids(task.context)))
            except Exception as error:  # noqa: BLE001  one user's failure is not the others'
                yield task, refused(error)
        for place, prompt in sorted(prompts, key=lambda item: len(item[1])):
            yield tasks[place], self._answer(prompt)

    def close(self) -> None:
        """See `Engine.close`."""

    def _answer(self, prompt: list[int]) -> Answer:
        try:
            found = self._forecaster.forecast_prompt(prompt, self._top_k)
        except Exception as error:  # noqa: BLE001  one user's failure is not the others'
            return refused(error)
        # Rounding may step over the bounds; a client that reads an answer cuts it likewise.
        return Forecasted(
            advertiser_ids=found.advertiser_ids.tolist(),
            log_probs=np.minimum(found.log_probs, 0).tolist(),
            exact=found.exact,
            missing_mass=min(max(float(found.missing_mass), 0.0), 1.0),
            bundle_id=self._forecaster.bundle.bundle_id,
        )
