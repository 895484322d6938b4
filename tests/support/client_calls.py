"""Every kind of client behind one interface, so that one test covers all kinds."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest

from adprior_client import (
    Advertiser,
    AsyncRankingClient,
    AsyncRetrievalClient,
    ClientConfig,
    Forecast,
    Ranking,
    RankingClient,
    RetrievalClient,
    User,
)

SECRET: Final = "a-secret-of-the-user"
USER: Final = User(profile={"note": SECRET}, as_of="2024-05-31")
FORECAST: Final = Forecast(
    advertisers=(Advertiser(advertiser_id=7, name="Acme", log_prob=-0.5),),
    exact=True,
    missing_mass=0.25,
    bundle_id="bundle-1",
)
CANDIDATES: Final = [7, 8, 9]
BASE: Final = [0.1, -1.7, 2.3]
"""No FP32 numbers: an answer must not round them."""


@dataclass(frozen=True, slots=True)
class OpenClient:
    """An open client; an asyncio client has its own event loop."""

    client: Any
    kind: Kind
    run: Callable[[Any], Any]

    def ask(self, **options: Any) -> Any:
        return self.run(getattr(self.client, self.kind.method)(*self.kind.arguments, **options))

    def ask_until(self, reason: str | None, *, seconds: float = 20, **options: Any) -> Any:
        """Call until the result has this reason; return that result."""
        give_up = time.monotonic() + seconds
        while (result := self.ask(**options)).reason != reason:
            assert time.monotonic() < give_up, result.reason
            if self.kind.is_async:  # health checks run only while the loop does
                self.run(asyncio.sleep(0.02))
            else:
                time.sleep(0.02)
        return result

    def close(self) -> None:
        self.run(self.client.close())


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of call: a client, its method, and the arguments."""

    name: str
    make: Callable[..., Any]
    method: str
    arguments: tuple[Any, ...]

    @property
    def is_async(self) -> bool:
        return self.make in {AsyncRankingClient, AsyncRetrievalClient}

    @property
    def ranks(self) -> bool:
        return self.method == "score"

    @contextmanager
    def open(self, config: ClientConfig, **parts: Any) -> Iterator[OpenClient]:
        """Open a client, and close it at the end."""
        if not self.is_async:
            with self.make(config, **parts) as client:
                yield OpenClient(client, self, lambda result: result)
            return
        with asyncio.Runner() as runner:
            client = self.make(config, **parts)
            try:
                yield OpenClient(client, self, runner.run)
            finally:
                runner.run(client.close())

    def ask(
        self, config: ClientConfig, *, times: int = 1, parts: Any = None, **options: Any
    ) -> Any:
        """Open a client, call it, close it; return the last result."""
        with self.open(config, **(parts or {})) as client:
            for _ in range(times):
                result = client.ask(**options)
        return result


_CALLS: Final = (
    ("retrieval", RetrievalClient, AsyncRetrievalClient, "forecast", (USER,)),
    ("ranking live", RankingClient, AsyncRankingClient, "score", (USER, CANDIDATES, BASE)),
    ("ranking", RankingClient, AsyncRankingClient, "score", (FORECAST, CANDIDATES, BASE)),
)
KINDS: Final = tuple(
    Kind(name=f"{how} {name}", make=make, method=method, arguments=arguments)
    for name, blocking, asynchronous, method, arguments in _CALLS
    for how, make in (("sync", blocking), ("async", asynchronous))
)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
every_live_kind = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.arguments[0] is USER], ids=lambda kind: kind.name
)


def run_command(command: Any, *options: str) -> int:
    """Run the module of a subcommand, and return its exit code."""
    parser = argparse.ArgumentParser(prog="adprior")
    command.add_arguments(parser)
    return int(command.run(parser.parse_args(options)))


def assert_harmless(result: Forecast | Ranking) -> None:
    """Assert that an ads service can use this result: base logits, or no advertisers."""
    if isinstance(result, Ranking):
        assert result.logits.tolist() == BASE
        assert result.adjusted_logits.tolist() == BASE
        assert not result.applied
        assert [item.status for item in result.candidates] == ["unknown"] * len(BASE)
    else:
        assert result.advertisers == ()
        assert (result.exact, result.missing_mass) == (False, 1.0)
    assert (result.source, result.bundle_id) == ("none", "")
