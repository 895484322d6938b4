"""Reports how much of a user's context the server used."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient

from adprior_client._call.credentials import Credentials
from adprior_client._call.wire import Request, channel_settings, read_answer
from adprior_client.config import ClientConfig
from adprior_client.server_list import each_server
from adprior_client.server_sources import Address
from adprior_runtime import contract
from adprior_runtime.contract import UNCOUNTED, ContextCount, Priority

_OUTPUTS: Final = (contract.CONTEXT_USE,)


@dataclass(frozen=True, slots=True)
class ContextUse:
    """The counts of one user's context.

    Attributes:
        counts: int32 [n], in the order of `contract.ContextCount`; `contract.UNCOUNTED` if the
            bundle does not count it. An older server has fewer.
    """

    counts: NDArray[np.int32]

    def __getitem__(self, count: ContextCount) -> int:
        """Return one count."""
        return int(self.counts[count]) if count < self.counts.size else UNCOUNTED

    @property
    def unused(self) -> tuple[str, ...]:
        """A phrase for each part that was not used or is unknown to the model."""
        shown = self[ContextCount.ADVERTISERS]
        known = self[ContextCount.KNOWN_ADVERTISERS]
        events, late = self[ContextCount.EVENTS], self[ContextCount.AFTER_AS_OF]
        over, denied = self[ContextCount.OVER_BUDGET], self[ContextCount.DENIED_KEYS]
        unknown, keys = self[ContextCount.UNKNOWN_KEYS], self[ContextCount.PROFILE_KEYS] - denied
        used = events - late - over
        phrases = (
            (UNCOUNTED < known < shown, f"{known} of {shown} advertisers known"),
            (shown == 0 < used, f"none of {used} events names an advertiser"),
            (unknown > 0, f"{unknown} of {keys} profile keys unknown"),
            (denied > 0, f"{denied} profile keys denied"),
            (over > 0, f"{over} of {events} events over the prompt's budget"),
            (late > 0, f"{late} of {events} events after as_of (a time without a zone is UTC)"),
        )
        return tuple(phrase for holds, phrase in phrases if holds)

    def describe(self) -> str:
        """Return the counts as one line."""
        known, events = self[ContextCount.KNOWN_ADVERTISERS], self[ContextCount.EVENTS]
        phrases = list(self.unused)
        if known > UNCOUNTED and known == self[ContextCount.ADVERTISERS] > 0:
            phrases.insert(0, f"{known} of {known} advertisers known")
        if events == 0:
            phrases.insert(0, "no history")
        return ", ".join(phrases) or "all of it is used"


def print_context_use(command: str, config: ClientConfig, raw: bytes, *, as_json: bool) -> None:
    """Print how a context was used; with ``as_json`` only unused parts, to standard error."""
    use = _ask_context_use(config, raw)
    if use is None:
        return
    if not as_json:
        print(f"Context: {use.describe()}")
    elif use.unused:
        print(f"adprior {command}: context: {use.describe()}", file=sys.stderr)


def _ask_context_use(config: ClientConfig, raw: bytes) -> ContextUse | None:
    user = {contract.USER_CONTEXT: np.array([raw], dtype=np.object_)}
    request = Request.of(contract.TOKENIZER, user, _OUTPUTS, Priority.RETRIEVAL)
    try:
        server = each_server(config)[0]
        (url,), credentials = server.urls, Credentials(config)
        settings: dict[str, Any] = channel_settings(server, Address(url), is_only=True)
        with InferenceServerClient(url, creds=credentials.channel, **settings) as client:
            headers = dict(config.metadata) | credentials.token
            result = client.infer(**request.arguments(config.deadline_s, headers))
        return ContextUse(read_answer(request, result)[contract.CONTEXT_USE])
    except Exception:  # noqa: BLE001  the forecast or ranking itself has already been printed
        return None
