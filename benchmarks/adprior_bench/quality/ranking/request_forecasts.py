"""All rankers' forecasts for the requests of a ranking log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from adprior_bench.quality.baselines.choices import TunedBaseline
from adprior_bench.quality.baselines.tuning import forecast_all
from adprior_bench.quality.forecasts import LLM, blend_name
from adprior_bench.quality.histories import EncodedCase
from adprior_bench.quality.metrics import Float32Array
from adprior_bench.quality.ranking.request_log import RequestLog

ModelForecast: TypeAlias = Callable[[Sequence[EncodedCase], str], Float32Array]
"""Takes cases and a title; returns the model's forecasts, float32 [cases, advertisers]."""


def forecast_requests(
    log: RequestLog,
    model: ModelForecast,
    tuned: Sequence[TunedBaseline],
    shares: Mapping[str, float],
) -> dict[str, tuple[Float32Array, Float32Array]]:
    """Return forecasts for the validation and the test users' requests, by ranker.

    Args:
        log: The requests.
        model: The language model.
        tuned: The baselines, with the settings that were chosen on the event log.
        shares: The model's share in each blend, chosen there too.
    """
    groups = (("validation users", log.validation.cases), ("test users", log.test.cases))
    found: dict[str, tuple[Float32Array, Float32Array]] = {}
    first, second = (model(cases, f"forecasts for requests, {users}") for users, cases in groups)
    found[LLM] = first, second
    for each in tuned:
        first, second = (
            forecast_all(
                each.baseline, cases, found[LLM][0].shape[1], title=f"{each.name}, {users}"
            )
            for users, cases in groups
        )
        found[each.name] = first, second
    for name, share in shares.items():
        other = found[name.removeprefix(blend_name(""))]
        first, second = (
            (np.float32(share) * mine + np.float32(1 - share) * theirs).astype(np.float32)
            for mine, theirs in zip(found[LLM], other, strict=True)
        )
        found[name] = first, second
    return found
