"""The retrieval experiment: the reserved places filled by the model's forecast and by others.

The model's forecast fills them as it is, with new advertisers only, and beside the repeats of own
history and of the best baseline, which keep what a history can tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from adprior_bench.quality.baselines.registry import OWN, POPULARITY
from adprior_bench.quality.explore import spliced, without_history
from adprior_bench.quality.forecasts import LLM, Forecasts
from adprior_bench.quality.intervals import UserBootstrap
from adprior_bench.quality.metrics import Float32Array
from adprior_bench.quality.retrieval.places import Filled
from adprior_bench.quality.retrieval.quotas import measure_quotas
from adprior_bench.quality.retrieval.retrieval_tables import RetrievalFigures, retrieval_section
from adprior_bench.quality.retrieval.retriever_tuning import tune_retriever
from adprior_bench.quality.study import Study

_TRIALS: Final = 16


def run_retrieval(
    study: Study,
    forecasts: Forecasts,
    best_for_new: str,
    bootstrap: UserBootstrap,
    *,
    quick: bool,
) -> RetrievalFigures | None:
    """Fill the places in every way; None if the log names no items.

    Args:
        study: The users.
        forecasts: Of all advertisers.
        best_for_new: The best baseline for new advertisers, on validation cases.
        bootstrap: Over the test cases' users.
        quick: Try one setting of the retriever only.
    """
    if not any(any(user.items) for user in study.learnt):
        return None
    tuning = tune_retriever(study, trials=1 if quick else _TRIALS)
    groups = (study.validation, forecasts.validation), (study.test, forecasts.test)

    def fill(title: str, make: Callable[..., Float32Array] | None) -> Filled:
        validation, test = (
            measure_quotas(
                tuning.retriever, study, cases, None if make is None else make(matrices, cases)
            )
            for cases, matrices in groups
        )
        return Filled(title=title, validation=validation, test=test)

    def whole(name: str) -> Filled:
        return fill(f"{name}'s forecast", lambda found, _: found[name])

    def joined(repeats: str, new: str) -> Filled:
        return fill(
            f"{repeats}'s repeats, {new}'s new advertisers",
            lambda found, cases: spliced(found[repeats], found[new], cases),
        )

    ours = [
        whole(LLM),
        fill(
            f"{LLM}'s new advertisers only",
            lambda found, cases: without_history(found[LLM], cases),
        ),
        *(joined(name, LLM) for name in dict.fromkeys([OWN, forecasts.best])),
    ]
    rivals = [whole(name) for name in dict.fromkeys([POPULARITY, OWN, forecasts.best])]
    if best_for_new != forecasts.best:
        rivals.append(joined(forecasts.best, best_for_new))
    return retrieval_section(ours, rivals, fill("no forecast", None), tuning, bootstrap)
