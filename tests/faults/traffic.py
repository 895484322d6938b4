"""The load of a ranking service: calls from several threads, each recorded with its times.

Beside it, in the same process, threads only wait for the length of a deadline: the idle control.
How late they wake up is the machine's delay, not the client's.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np

from adprior_client import ClientConfig, Forecast, RankingClient, RetrievalClient
from support.paths import DEMO

CANDIDATES: Final = 20
MAX_K: Final = 256
"""Advertisers of a forecast that the candidates are drawn from."""
_LIVE_DEADLINE_S: Final = 0.3
_STORED_DEADLINE_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A user with candidates, and a healthy server's logits: live, and with the stored forecast."""

    user: Any
    forecast: Forecast
    candidates: list[int]
    base: list[float]
    live: list[float]
    stored: list[float]


def call_healthy_server(config: ClientConfig, **client: Any) -> list[Request]:
    """Return the demo's users with candidates, one of which is not in the catalogue."""
    draw = np.random.default_rng(3)
    patient = replace(config, deadline_s=60, fail_open=False)
    requests = []
    with RetrievalClient(patient, **client) as retrieval, RankingClient(patient, **client) as rank:
        for file in sorted((DEMO / "users").glob("*.json")):
            user = json.loads(file.read_text())
            forecast = retrieval.forecast(user)
            many = retrieval.forecast(user, MAX_K)
            known = [advertiser.advertiser_id for advertiser in many.advertisers]
            candidates = [*draw.choice(known, CANDIDATES - 1, replace=False).tolist(), 2**40]
            base = draw.normal(-3, 1, CANDIDATES).tolist()
            live, stored = (
                rank.score(subject, candidates, base).logits.tolist()
                for subject in (user, forecast)
            )
            requests.append(
                Request(
                    user=user,
                    forecast=forecast,
                    candidates=candidates,
                    base=base,
                    live=live,
                    stored=stored,
                )
            )
    return requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of `RankingClient.score`; times are of the monotonic clock.

    Attributes:
        outcome: ``adjusted``, ``base``, ``wrong`` or ``raised``.
        reason: The result's reason, or the exception's name.
        bundle_id: The bundle that answered; empty if none did.
    """

    began: float
    ended: float
    deadline_s: float
    is_live: bool
    outcome: str
    reason: str | None
    bundle_id: str = ""

    @property
    def is_live_answer(self) -> bool:
        """Whether it returned logits from a live forecast."""
        return self.is_live and self.outcome == "adjusted"

    @property
    def overshoot_s(self) -> float:
        """Seconds beyond the deadline."""
        return max(0.0, self.ended - self.began - self.deadline_s)


class Traffic:
    """Threads that share one client; a context manager that ends them.

    Args:
        client: Never restarted.
        requests: Sent in random order.
        threads: Number of callers.
        rate_hz: Calls a second of each caller, if calls do not take longer.
        live_share: Share of calls that run the model; the others bring a forecast.
        deadlines_s: Deadline of a live call, and of a call with a forecast.
        users: Calls are made for this many user ids, which choose the servers; 0 for no ids.
    """

    def __init__(
        self,
        client: RankingClient,
        requests: list[Request],
        *,
        threads: int = 8,
        rate_hz: float = 15.0,
        live_share: float = 1 / 6,
        deadlines_s: tuple[float, float] = (_LIVE_DEADLINE_S, _STORED_DEADLINE_S),
        users: int = 0,
    ) -> None:
        self._users = users
        self._client = client
        self._requests = requests
        self._period_s = 1 / rate_hz
        self._live_share = live_share
        self._live_deadline_s, self._stored_deadline_s = deadlines_s
        self._stop = threading.Event()
        self._started = itertools.count()
        self.calls: list[Call] = []
        self.idle_delays_s: list[float] = []
        self._threads = [
            threading.Thread(target=self._call_on, args=(seed,), daemon=True)
            for seed in range(threads)
        ] + [threading.Thread(target=self._wait_on, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        end = time.monotonic() + 10
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self.started = next(self._started)

    def first_live_answer(self, after: float) -> float | None:
        """Return when the first live answer came to a call that began after a time."""
        ends = [c.ended for c in list(self.calls) if c.is_live_answer and c.began >= after]
        return min(ends, default=None)

    def _call_on(self, seed: int) -> None:
        draw = random.Random(seed)
        due = time.monotonic() + draw.random() * self._period_s
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due, time.monotonic()) + self._period_s
            request = draw.choice(self._requests)
            next(self._started)
            is_live = draw.random() < self._live_share
            user_id = draw.randrange(self._users) if self._users else None
            self.calls.append(self._call(request, user_id, is_live=is_live))

    def _call(self, request: Request, user_id: int | None, *, is_live: bool) -> Call:
        subject, expected, deadline_s = (
            (request.user, request.live, self._live_deadline_s)
            if is_live
            else (request.forecast, request.stored, self._stored_deadline_s)
        )
        began, bundle_id = time.monotonic(), ""
        try:
            ranking = self._client.score(
                subject, request.candidates, request.base, user_id=user_id, deadline_s=deadline_s
            )
            ended = time.monotonic()
            outcome, reason = compare(ranking, expected, request.base)
            bundle_id = ranking.bundle_id
        except Exception as error:  # noqa: BLE001  a call must never raise; record that it did
            ended = time.monotonic()
            outcome, reason = "raised", type(error).__name__
        return Call(
            began=began,
            ended=ended,
            deadline_s=deadline_s,
            is_live=is_live,
            outcome=outcome,
            reason=reason,
            bundle_id=bundle_id,
        )

    def _wait_on(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            threading.Event().wait(_STORED_DEADLINE_S)
            delay_s = time.monotonic() - began - _STORED_DEADLINE_S
            self.idle_delays_s.append(max(0.0, delay_s))


def compare(ranking: Any, expected: list[float], base: list[float]) -> tuple[str, str | None]:
    """Return a call's outcome and reason, see `Call`."""
    reason = None if ranking.reason is None else str(ranking.reason)
    if reason is None and np.allclose(ranking.logits, expected, atol=1e-4):
        return "adjusted", None
    if reason is not None and ranking.logits.tolist() == base:
        return "base", reason
    return "wrong", reason
