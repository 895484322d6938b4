"""Every kind of client behind one face, so that one table drives them all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

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
"""None of them is an FP32 number: an answer must not round them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of call.

    Attributes:
        name: For the test's id.
        make: The client.
        arguments: Of its call.
        method: Its call.
    """

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

    def ask(
        self, config: ClientConfig, *, times: int = 1, parts: Any = None, **options: Any
    ) -> Any:
        """Make a client, ask so many times, close it; returns the last answer."""

        def make() -> Any:
            return self.make(config, **(parts or {}))

        if self.is_async:
            return asyncio.run(self._ask_async(make, times, options))
        with make() as client:
            for _ in range(times):
                result = getattr(client, self.method)(*self.arguments, **options)
        return result

    async def _ask_async(self, make: Callable[[], Any], times: int, options: Any) -> Any:
        async with make() as client:
            for _ in range(times):
                result = await getattr(client, self.method)(*self.arguments, **options)
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


def assert_harmless(result: Forecast | Ranking) -> None:
    """Whatever happened, an ads service can go on with this."""
    if isinstance(result, Ranking):
        assert result.logits.tolist() == BASE
        assert result.adjusted_logits.tolist() == BASE
        assert not result.applied
        assert [item.status for item in result.candidates] == ["unknown"] * len(BASE)
    else:
        assert result.advertisers == ()
        assert (result.exact, result.missing_mass) == (False, 1.0)
    assert (result.source, result.bundle_id) == ("none", "")
