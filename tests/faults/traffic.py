"""A ranking service's load, kept up while something breaks: every call, when it came and went.

Beside it, in the same process, runs the idle control: threads that only wait for as long as a
deadline. How late those wake up is the machine's doing, not the client's.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from adprior_client import ClientConfig, Forecast, RankingClient, RetrievalClient
from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, Bundle
from adprior_runtime.catalogue.advertisers import Advertisers

DEMO: Final = Path(__file__).parents[2] / "demo"
CANDIDATES: Final = 20
LIVE_DEADLINE_S: Final = 0.3
HELD_DEADLINE_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A user with candidates, and what a healthy server makes of them, live and with a forecast."""

    user: Any
    forecast: Forecast
    candidates: list[int]
    base: list[float]
    live: list[float]
    held: list[float]


def ask_while_healthy(config: ClientConfig, **client: Any) -> list[Question]:
    """Ask for the demo's users, with candidates of its catalogue and one that is in none."""
    draw = np.random.default_rng(3)
    known = Advertisers.load(Bundle.open(DEMO / "bundle", ()).path(ADVERTISERS_DIRECTORY)).ids
    patient = replace(config, deadline_s=60, fail_open=False)
    questions = []
    with RetrievalClient(patient, **client) as retrieval, RankingClient(patient, **client) as rank:
        for file in sorted((DEMO / "users").glob("*.json")):
            user = json.loads(file.read_text())
            forecast = retrieval.forecast(user)
            candidates = [*draw.choice(known, CANDIDATES - 1, replace=False).tolist(), 2**40]
            base = draw.normal(-3, 1, CANDIDATES).tolist()
            questions.append(
                Question(
                    user=user,
                    forecast=forecast,
                    candidates=candidates,
                    base=base,
                    live=rank.score(user, candidates, base).logits.tolist(),
                    held=rank.score(forecast, candidates, base).logits.tolist(),
                )
            )
    return questions


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of `RankingClient.score`; times are of the monotonic clock.

    Attributes:
        outcome: ``adjusted``, ``base``, ``wrong`` or ``raised``.
        reason: The result's, or the exception's name.
    """

    began: float
    ended: float
    deadline_s: float
    is_live: bool
    outcome: str
    reason: str | None

    @property
    def overshoot_s(self) -> float:
        """By how much it outlasted its deadline."""
        return max(0.0, self.ended - self.began - self.deadline_s)


class Traffic:
    """Threads that share one client; a context manager that ends them.

    Args:
        client: Never restarted.
        questions: What is asked, in random order.
        threads: How many callers.
        rate_hz: How often each calls, unless the last call took longer.
        live_share: Of the calls run the model; the others have a forecast at hand.
        deadlines_s: Of a call that runs the model, and of one that does not.
    """

    def __init__(
        self,
        client: RankingClient,
        questions: list[Question],
        *,
        threads: int = 8,
        rate_hz: float = 15.0,
        live_share: float = 1 / 6,
        deadlines_s: tuple[float, float] = (LIVE_DEADLINE_S, HELD_DEADLINE_S),
    ) -> None:
        self._client = client
        self._questions = questions
        self._period_s = 1 / rate_hz
        self._live_share = live_share
        self._live_deadline_s, self._held_deadline_s = deadlines_s
        self._stop = threading.Event()
        self._started = itertools.count()
        self.calls: list[Call] = []
        self.control_s: list[float] = []
        self._threads = [
            threading.Thread(target=self._call_on, args=(seed,), daemon=True)
            for seed in range(threads)
        ] + [threading.Thread(target=self._wait_on, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        end = time.monotonic() + 10
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self.started = next(self._started)

    def first_live_answer(self, after: float) -> float | None:
        """Return when the first live forecast came that was asked for after a time."""
        ends = [
            call.ended
            for call in list(self.calls)
            if call.is_live and call.outcome == "adjusted" and call.began >= after
        ]
        return min(ends, default=None)

    def _call_on(self, seed: int) -> None:
        draw = random.Random(seed)
        due = time.monotonic() + draw.random() * self._period_s
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due, time.monotonic()) + self._period_s
            question = draw.choice(self._questions)
            next(self._started)
            self.calls.append(self._call(question, is_live=draw.random() < self._live_share))

    def _call(self, question: Question, *, is_live: bool) -> Call:
        deadline_s = self._live_deadline_s if is_live else self._held_deadline_s
        subject = question.user if is_live else question.forecast
        began = time.monotonic()
        try:
            ranking = self._client.score(
                subject, question.candidates, question.base, deadline_s=deadline_s
            )
            ended = time.monotonic()
            outcome, reason = _judge(ranking, question.live if is_live else question.held, question)
        except Exception as error:  # noqa: BLE001  what must never happen is recorded
            ended = time.monotonic()
            outcome, reason = "raised", type(error).__name__
        return Call(
            began=began,
            ended=ended,
            deadline_s=deadline_s,
            is_live=is_live,
            outcome=outcome,
            reason=reason,
        )

    def _wait_on(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            threading.Event().wait(HELD_DEADLINE_S)
            self.control_s.append(max(0.0, time.monotonic() - began - HELD_DEADLINE_S))


def _judge(ranking: Any, expected: list[float], question: Question) -> tuple[str, str | None]:
    reason = None if ranking.reason is None else str(ranking.reason)
    if reason is None and np.allclose(ranking.logits, expected, atol=1e-4):
        return "adjusted", None
    if reason is not None and ranking.logits.tolist() == question.base:
        return "base", reason
    return "wrong", reason
