"""Everything that callers do to a server, good and bad, at a steady rate.

Forecasts of changing length, rankings live and with a forecast at hand, users whose history differs
in length, calls whose deadline is over before the answer, and contexts that are refused.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from adprior_client import ClientConfig, Forecast, RankingClient, RetrievalClient

_SHARES: Final[Mapping[str, float]] = {
    "retrieval": 0.30,
    "live ranking": 0.25,
    "ranking, forecast at hand": 0.30,
    "given up": 0.10,
    "refused": 0.05,
}
_PATIENT_S: Final = 10.0
_HASTY_S: Final = 0.005
_THREADS: Final = 4


class MixedLoad:
    """Threads that share two clients; a context manager that ends them.

    Args:
        url: Of the server.
        users: Contexts; each call alters one.
        advertisers: Ids of the catalogue and names, to fill histories and rank with.
        rate_hz: Calls a second, of all threads together.
        seed: Of what is asked.
    """

    def __init__(
        self,
        url: str,
        users: Sequence[Mapping[str, Any]],
        advertisers: Sequence[tuple[int, str]],
        *,
        rate_hz: float,
        seed: int = 0,
    ) -> None:
        config = ClientConfig(urls=(url,), deadline_s=_PATIENT_S)
        self._retrieval, self._ranking = RetrievalClient(config), RankingClient(config)
        self._users = users
        self._advertisers = advertisers
        self._period_s = _THREADS / rate_hz
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """Calls by kind and by how they ended: ``answered``, or the reason."""
        self._kinds: dict[str, Callable[[random.Random], Any]] = {
            "retrieval": self._retrieve,
            "live ranking": self._rank_live,
            "ranking, forecast at hand": self._rank_held,
            "given up": self._give_up,
            "refused": self._be_refused,
        }
        self._forecasts: list[Forecast] = []
        self._threads = [
            threading.Thread(target=self._call_on, args=(random.Random(f"{seed} {number}"),))  # noqa: S311
            for number in range(_THREADS)
        ]

    def __enter__(self) -> Self:
        # Rankings with a forecast at hand need some.
        self._forecasts = [self._retrieval.forecast(user) for user in self._users]
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
        for thread in self._threads:
            thread.join()
        self._retrieval.close()
        self._ranking.close()

    def _call_on(self, draw: random.Random) -> None:
        due = time.monotonic() + draw.random() * self._period_s
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due, time.monotonic() - self._period_s) + self._period_s
            (kind,) = draw.choices(list(_SHARES), list(_SHARES.values()))
            result = self._kinds[kind](draw)
            with self._lock:
                self.outcomes[kind, str(result.reason or "answered")] += 1

    def _retrieve(self, draw: random.Random) -> Forecast:
        forecast = self._retrieval.forecast(self._user(draw), draw.choice([None, 5, 50]))
        if forecast.advertisers:
            self._forecasts[draw.randrange(len(self._forecasts))] = forecast
        return forecast

    def _rank_live(self, draw: random.Random) -> Any:
        return self._ranking.score(self._user(draw), *self._candidates(draw))

    def _rank_held(self, draw: random.Random) -> Any:
        return self._ranking.score(draw.choice(self._forecasts), *self._candidates(draw))

    def _give_up(self, draw: random.Random) -> Any:
        user = self._user(draw)
        return self._ranking.score(user, *self._candidates(draw), deadline_s=_HASTY_S)

    def _be_refused(self, draw: random.Random) -> Any:
        # Only the server can tell that a profile is too long for the prompt.
        profile = {f"key{number}": "value " * 40 for number in range(draw.randrange(200, 400))}
        return self._retrieval.forecast({"as_of": "2022-12-01", "profile": profile})

    def _user(self, draw: random.Random) -> dict[str, Any]:
        return alter_user(draw.choice(self._users), [name for _, name in self._advertisers], draw)

    def _candidates(self, draw: random.Random) -> tuple[list[int], list[float]]:
        count = min(draw.choice([1, 10, 50]), len(self._advertisers))
        ids = [advertiser_id for advertiser_id, _ in draw.sample(self._advertisers, count)]
        return ids, [draw.gauss(-3.0, 1.0) for _ in ids]


def alter_user(
    user: Mapping[str, Any], names: Sequence[str], draw: random.Random
) -> dict[str, Any]:
    """Return a user with part of the history, and some of its advertisers exchanged for others."""
    history = [dict(event) for event in user.get("history", ())]
    kept = history[draw.randrange(len(history) + 1) :]
    for event in kept:
        if "advertiser" in event and draw.random() < 0.3:
            event["advertiser"] = draw.choice(names)
    return {**user, "history": kept}
