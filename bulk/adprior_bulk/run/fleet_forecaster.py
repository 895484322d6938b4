"""Forecasts from a fleet of servers; the client chooses a server for each user.

A worker has at most ``concurrency`` calls in flight, so that a slow server receives fewer. A server
that is overloaded (RESOURCE_EXHAUSTED) is asked again after a growing pause. While no server
answers, the worker waits, up to its patience; then the run stops, and continues when it is started
again. A user whose calls all fail while other users get answers is refused, so that one context
does not stop the rest.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from adprior_bulk.run.user_forecaster import (
    Answer,
    Forecasted,
    ForecasterSettings,
    Refused,
    Task,
    UserForecaster,
)
from adprior_client import BadAnswerError, ClientConfig, Forecast, RetrievalClient, User
from adprior_client.errors import (
    CancelledError,
    ClientError,
    DeadlineError,
    DeniedError,
    InvalidArgumentError,
    OtherBundleError,
    UnavailableError,
)
from adprior_client.server_list import each_server
from adprior_runtime.errors import EnvironmentProblemError, InvalidInputError

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0
_BAD_ANSWERS: Final = 3
"""After this many bad answers for one user, the user is refused."""
_PROBES: Final = 3
_EMPTY_USER: Final = User(as_of="2024-01-01")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings(ForecasterSettings):
    """Servers that all serve one bundle.

    Attributes:
        client: Their addresses, deadline and TLS.
        top_k: Advertisers per forecast; None for the bundle's default.
        interest_k: Interests per forecast; None for none.
        bundle_id: Their bundle; answers from another are rejected.
        concurrency: Calls in flight per worker.
        patience_s: Time without any answer after which the run stops.
    """

    name: ClassVar[str] = "served"
    client: ClientConfig
    top_k: int | None
    bundle_id: str
    concurrency: int = 4
    patience_s: float = 300.0
    interest_k: int | None = None

    def open(self) -> UserForecaster:
        """Make a client and its threads."""
        return _FleetForecaster(self)


class _FleetForecaster(UserForecaster):
    """Sends users in order of context length, so that a server's batches are of similar length."""

    def __init__(self, settings: FleetSettings) -> None:
        self._settings = settings
        self._client = RetrievalClient(replace(settings.client, fail_open=False))
        self._pool = ThreadPoolExecutor(settings.concurrency, "adprior-bulk")

    def forecast(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Answer]]:
        ordered = sorted(tasks, key=lambda task: len(task.raw))
        yield from zip(ordered, self._pool.map(self._ask, ordered), strict=True)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _ask(self, task: Task) -> Answer:
        began = time.monotonic()
        pause_s, bad_answers = _FIRST_PAUSE_S, 0
        problem: ClientError
        while True:
            try:
                return self._checked(
                    self._client.forecast(
                        task.raw,
                        self._settings.top_k,
                        user_id=task.user_id,
                        interest_k=self._settings.interest_k,
                    )
                )
            except InvalidArgumentError as error:
                return Refused.of(error)
            except (UnavailableError, DeadlineError, CancelledError, OtherBundleError) as error:
                problem = error
            except DeniedError as error:
                raise EnvironmentProblemError(str(error)) from error
            except BadAnswerError as error:
                bad_answers += 1
                if bad_answers == _BAD_ANSWERS:
                    return Refused.of(error)
                problem = error
            if time.monotonic() - began + pause_s > self._settings.patience_s:
                return self._give_up(task, problem)
            time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  no secret
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _give_up(self, task: Task, problem: ClientError) -> Answer:
        """Refuse the user if their server answers others; otherwise stop the run."""
        is_silence = isinstance(problem, UnavailableError | DeadlineError)
        if is_silence and self._answers_others(task.user_id):
            return Refused.of(problem)
        raise EnvironmentProblemError(
            f"no answer within {self._settings.patience_s:g} s; the last error: {problem}; start "
            "the run again and it will continue"
        ) from problem

    def _answers_others(self, user_id: str) -> bool:
        """Return whether this user's server answers for a user without any history."""
        # A new client: in the old one, this user may have opened the server's circuit breaker.
        with RetrievalClient(replace(self._settings.client, fail_open=False)) as client:
            for _ in range(_PROBES):
                with suppress(ClientError):
                    found = client.forecast(_EMPTY_USER, self._settings.top_k, user_id=user_id)
                    return found.bundle_id == self._settings.bundle_id
                time.sleep(min(self._settings.patience_s / 10, _LONGEST_PAUSE_S))
        return False

    def _checked(self, found: Forecast) -> Answer:
        if found.bundle_id != self._settings.bundle_id:
            raise OtherBundleError(
                f"the fleet serves bundle {found.bundle_id}, this run expects "
                f"{self._settings.bundle_id}"
            )
        return Forecasted(
            advertiser_ids=[item.advertiser_id for item in found.advertisers],
            log_probs=[item.log_prob for item in found.advertisers],
            exact=found.exact,
            missing_mass=found.missing_mass,
            bundle_id=found.bundle_id,
            interest_ids=[item.interest_id for item in found.interests],
            interest_log_probs=[item.log_prob for item in found.interests],
        )


def ask_bundle_id(
    config: ClientConfig, top_k: int | None = None, interest_k: int | None = None
) -> str:
    """Return the bundle that every server of a fleet serves now.

    Args:
        config: How to reach them.
        top_k: Advertisers per forecast of the run; None for the bundle's default.
        interest_k: Interests per forecast; None for none.

    Raises:
        ClientError: A server does not answer, or refuses ``top_k`` or ``interest_k``; or no server
            is known.
        InvalidInputError: Interests are wanted, and a server has none.
        EnvironmentProblemError: They serve different bundles.
    """
    found = {}
    for server in each_server(config):
        (url,) = server.urls
        with RetrievalClient(replace(server, fail_open=False)) as client:
            forecast = client.forecast(_EMPTY_USER, top_k, interest_k=interest_k)
        if interest_k is not None and not forecast.interests:
            raise InvalidInputError(f"--interests: {url} serves a bundle without interests")
        found[url] = forecast.bundle_id
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{url}: {bundle_id}" for url, bundle_id in found.items())
        raise EnvironmentProblemError(f"the servers serve different bundles: {listed}")
    return next(iter(found.values()))
