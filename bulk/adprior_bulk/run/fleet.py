"""The engine that asks servers: several, each user's calls to one of them, others when it is down.

As many calls are under way as the worker may have, and no more: a server that is slow is asked less
often, and one that says it has too much to do (RESOURCE_EXHAUSTED) is asked again after a pause
that grows. While nobody answers, the worker waits, up to its patience; then the run stops, and goes
on where it was when it is started again. A user who is not answered for so long, though others are,
is refused: one context must not stop the rest.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from adprior_bulk.run.engines import Answer, Engine, EngineSettings, Forecasted, Task, refused
from adprior_client import BadAnswerError, ClientConfig, Forecast, RetrievalClient
from adprior_client.errors import (
    CancelledError,
    ClientError,
    DeadlineError,
    DeniedError,
    InvalidArgumentError,
    OtherBundleError,
    UnavailableError,
)
from adprior_runtime.errors import EnvironmentProblemError

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0
_BAD_ANSWERS: Final = 3
"""After so many of one user the answer is believed: the server fails on them."""
_PROBES: Final = 3
_NOBODY: Final = b'{"as_of":"2024-01-01"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet(EngineSettings):
    """Servers that all serve one bundle.

    Attributes:
        client: Their addresses, deadline and TLS.
        top_k: Advertisers of a forecast; None for the bundle's number.
        bundle_id: What they serve; other answers are not taken.
        concurrency: Calls that one worker has under way.
        patience_s: How long nobody need answer before the run stops.
    """

    client: ClientConfig
    top_k: int | None
    bundle_id: str
    concurrency: int = 4
    patience_s: float = 300.0

    @property
    def name(self) -> str:
        """See `EngineSettings.name`."""
        return "served"

    def open(self) -> Engine:
        """See `EngineSettings.open`."""
        return FleetEngine(self)


class FleetEngine(Engine):
    """Asks for users of like length together, so that a server's batches are of like length."""

    def __init__(self, settings: Fleet) -> None:
        self._settings = settings
        self._client = RetrievalClient(replace(settings.client, fail_open=False))
        self._pool = ThreadPoolExecutor(settings.concurrency, "adprior-bulk")

    def forecast(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Answer]]:
        """See `Engine.forecast`; shortest contexts first.

        Raises:
            EnvironmentProblemError: Nobody answered for too long.
        """
        ordered = sorted(tasks, key=lambda task: len(task.raw))
        yield from zip(ordered, self._pool.map(self._ask, ordered), strict=True)

    def close(self) -> None:
        """See `Engine.close`."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _ask(self, task: Task) -> Answer:
        began = time.monotonic()
        pause_s, bad_answers = _FIRST_PAUSE_S, 0
        problem: ClientError
        while True:
            try:
                return self._checked(self._forecast(task))
            except InvalidArgumentError as error:
                return refused(error)
            except (UnavailableError, DeadlineError, CancelledError, OtherBundleError) as error:
                problem = error
            except DeniedError as error:
                raise EnvironmentProblemError(str(error)) from error
            except BadAnswerError as error:
                bad_answers += 1
                if bad_answers == _BAD_ANSWERS:
                    return refused(error)
                problem = error
            if time.monotonic() - began + pause_s > self._settings.patience_s:
                is_silence = isinstance(problem, UnavailableError | DeadlineError)
                if is_silence and self._answers_others(task.user_id):
                    return refused(problem)
                raise EnvironmentProblemError(
                    f"no answer within {self._settings.patience_s:g} s; the last one failed with: "
                    f"{problem}; start the run again, and it goes on"
                ) from problem
            time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  no secret
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _answers_others(self, user_id: str) -> bool:
        """Whether a user of whom nothing is known is answered, by whoever this one's server is."""
        # A client of its own: in ours, this user may have opened the server's circuit breaker.
        with RetrievalClient(replace(self._settings.client, fail_open=False)) as client:
            for _ in range(_PROBES):
                with suppress(ClientError):
                    found = client.forecast(_NOBODY, self._settings.top_k, user_id=user_id)
                    return found.bundle_id == self._settings.bundle_id
                time.sleep(min(self._settings.patience_s / 10, _LONGEST_PAUSE_S))
        return False

    def _forecast(self, task: Task) -> Forecast:
        return self._client.forecast(task.raw, self._settings.top_k, user_id=task.user_id)

    def _checked(self, found: Forecast) -> Answer:
        if found.bundle_id != self._settings.bundle_id:
            raise OtherBundleError(
                f"the fleet serves bundle {found.bundle_id}, this run is of "
                f"{self._settings.bundle_id}"
            )
        return Forecasted(
            advertiser_ids=[item.advertiser_id for item in found.advertisers],
            log_probs=[item.log_prob for item in found.advertisers],
            exact=found.exact,
            missing_mass=found.missing_mass,
            bundle_id=found.bundle_id,
        )


def ask_bundle_id(config: ClientConfig, top_k: int | None = None) -> str:
    """Return the bundle that every server of a fleet serves.

    Args:
        config: How to reach them.
        top_k: How many advertisers they will be asked for; None for the bundle's number.

    Raises:
        ClientError: A server does not answer, or takes no request for so many.
        EnvironmentProblemError: They do not serve the same one.
    """
    found = {}
    for url in config.urls:
        with RetrievalClient(replace(config, urls=(url,), fail_open=False)) as client:
            found[url] = client.forecast(_NOBODY, top_k).bundle_id
    if len(set(found.values())) > 1:
        told = ", ".join(f"{url}: {bundle_id}" for url, bundle_id in found.items())
        raise EnvironmentProblemError(f"the servers serve different bundles: {told}")
    return next(iter(found.values()))
