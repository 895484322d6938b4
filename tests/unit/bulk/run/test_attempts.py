from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adprior_bulk.run.attempts import Attempts
from adprior_bulk.run.user_forecaster import Answer, Forecasted, Refused, Task, UserForecaster
from adprior_client.user_context import CheckedContext
from adprior_runtime.errors import EnvironmentProblemError
from adprior_runtime.prompt.context import UserContext

CONTEXT = UserContext(profile={}, history=(), as_of=datetime(2024, 5, 1, tzinfo=UTC))
TASKS = [Task(user_id=name, raw=CheckedContext(), context=CONTEXT) for name in ("a", "b\n", "c")]
FINE = Forecasted(advertiser_ids=[1], log_probs=[-1.0], exact=True, missing_mass=0.0, bundle_id="b")


class WorkerDiedError(Exception):
    pass


class DiesOn(UserForecaster):
    """A forecaster whose worker dies on one user."""

    def __init__(self, user_id: str) -> None:
        self._user_id = user_id

    def forecast(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Answer]]:
        for task in tasks:
            if task.user_id == self._user_id:
                raise WorkerDiedError
            yield task, FINE

    def close(self) -> None:
        pass


def test_only_the_context_that_kills_workers_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "attempts" / "0000.txt"
    for _ in range(5):
        with pytest.raises(WorkerDiedError):
            list(Attempts(path).forecast(DiesOn("b\n"), TASKS))
    answers = {t.user_id: a for t, a in Attempts(path).forecast(DiesOn("b\n"), TASKS)}
    assert answers["a"] == answers["c"] == FINE
    assert answers["b\n"] == Refused(code="INTERNAL", message="2 workers died while forecasting it")


def test_deaths_for_other_reasons_refuse_nobody(tmp_path: Path) -> None:
    path = tmp_path / "0000.txt"
    for task in TASKS * 3:
        forecasts = Attempts(path).forecast(DiesOn(""), TASKS)
        for done, answer in forecasts:  # the worker is killed just after this user
            assert answer == FINE
            if done is task:
                break
        del forecasts
    answers = [answer for _, answer in Attempts(path).forecast(DiesOn(""), TASKS)]
    assert answers == [FINE] * 3


class FailsOn(DiesOn):
    """A forecaster that fails on one user, as a fleet without servers does; the worker lives."""

    def forecast(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Answer]]:
        try:
            yield from super().forecast(tasks)
        except WorkerDiedError:
            raise EnvironmentProblemError("nobody answers") from None


def test_failures_of_the_forecaster_refuse_nobody(tmp_path: Path) -> None:
    path = tmp_path / "0000.txt"
    for _ in range(6):
        with pytest.raises(EnvironmentProblemError):
            list(Attempts(path).forecast(FailsOn("a"), TASKS))
    answers = [answer for _, answer in Attempts(path).forecast(FailsOn(""), TASKS)]
    assert answers == [FINE] * 3
