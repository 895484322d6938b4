"""Asks one server about itself: readiness, statistics, and how it reads a context; for asyncio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from tritonclient.grpc.aio import InferenceServerClient

from adprior_client._call.credentials import Credentials
from adprior_client._call.decoding import decode_bundle_id
from adprior_client._call.wire import Request, channel_settings, error_of, read_answer
from adprior_client.cli.context_use import ContextUse
from adprior_client.config import ClientConfig
from adprior_client.server_sources import Address
from adprior_runtime import contract
from adprior_runtime.contract import Priority
from adprior_runtime.server.model_counters import ModelCounters


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextReading:
    """A server's answer about one user context.

    Attributes:
        bundle_id: The server's bundle.
        use: How much of the context it uses.
        margin_nats: The smallest difference of log-probabilities that proves an order with this
            bundle (`adprior_runtime.search.rounding`).
    """

    bundle_id: str
    use: ContextUse
    margin_nats: float


class ServerProbe:
    """A connection to one server: an asynchronous context manager, for one event loop.

    Every method raises ClientError if the server fails or does not answer within ``deadline_s``.

    Args:
        config: Settings with one ``HOST:PORT``, such as `each_server` returns.
    """

    def __init__(self, config: ClientConfig) -> None:
        (url,) = config.urls
        self._config, self._address = config, Address(url)
        self._credentials = Credentials(config)
        self._channel: Any = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; a later call opens it again."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def is_ready(self) -> bool:
        """Return whether the server is ready with all models."""
        return bool(await self._ask("health", "is_server_ready", headers=self._headers()))

    async def read_counters(self) -> dict[str, ModelCounters]:
        """Return the counters of each model since the server's start."""
        answer = await self._ask("statistics", "get_inference_statistics", headers=self._headers())
        return {item.name: ModelCounters.of(item) for item in answer.model_stats}

    async def read_context(self, raw: bytes) -> ContextReading:
        """Return how the server reads a context; raises InvalidArgumentError if it refuses it."""
        user = {contract.USER_CONTEXT: np.array([bytes(raw)], dtype=np.object_)}
        request = Request.of(contract.TOKENIZER, user, contract.CONTEXT_READING, Priority.RETRIEVAL)
        arguments = request.arguments(self._config.deadline_s, self._headers())
        del arguments["client_timeout"]
        result = await self._ask(contract.TOKENIZER, "infer", **arguments)
        answer = read_answer(request, result)
        return ContextReading(
            bundle_id=decode_bundle_id(answer),
            use=ContextUse(answer[contract.CONTEXT_USE]),
            margin_nats=float(answer[contract.PROOF_MARGIN][0]),
        )

    def _headers(self) -> Mapping[str, str]:
        return dict(self._config.metadata) | self._credentials.token

    async def _ask(self, what: str, method: str, **arguments: Any) -> Any:
        if self._channel is None:
            settings = channel_settings(self._config, self._address, is_only=True)
            self._channel = InferenceServerClient(
                self._address.url, creds=self._credentials.channel, **settings
            )
        timeout_s = self._config.deadline_s
        try:
            return await getattr(self._channel, method)(**arguments, client_timeout=timeout_s)
        except Exception as error:
            if self._credentials.renew():
                self._channel = None  # calls under way keep theirs
            raise error_of(error, what, self._address, timeout_s, self._config) from error
