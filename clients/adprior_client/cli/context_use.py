"""What a server made of a user's context, for people: which of it counts, and what was not used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient

from adprior_client._call.credentials import Credentials
from adprior_client._call.wire import Request, channel_settings, read_answer
from adprior_client.config import ClientConfig
from adprior_runtime import contract
from adprior_runtime.contract import UNCOUNTED, ContextCount, Priority

_OUTPUTS: Final = (contract.CONTEXT_USE,)


@dataclass(frozen=True, slots=True)
class ContextUse:
    """The counts of one user's context; `contract.UNCOUNTED` where the bundle does not tell.

    Attributes:
        counts: int32 [n], in the order of `contract.ContextCount`; an older server has fewer.
    """

    counts: NDArray[np.int32]

    def __getitem__(self, count: ContextCount) -> int:
        """Return one count."""
        return int(self.counts[count]) if count < self.counts.size else UNCOUNTED

    @property
    def unused(self) -> tuple[str, ...]:
        """What was not used, or unknown to the model, each as a phrase; empty where all counts."""
        shown = self[ContextCount.ADVERTISERS]
        known = self[ContextCount.KNOWN_ADVERTISERS]
        events, late = self[ContextCount.EVENTS], self[ContextCount.AFTER_AS_OF]
        over, denied = self[ContextCount.OVER_BUDGET], self[ContextCount.DENIED_KEYS]
        unknown, keys = self[ContextCount.UNKNOWN_KEYS], self[ContextCount.PROFILE_KEYS] - denied
        told = events - late - over
        phrases = (
            (UNCOUNTED < known < shown, f"{known} of {shown} advertisers known"),
            (shown == 0 < told, f"none of {told} events names an advertiser"),
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


def ask_context_use(config: ClientConfig, raw: bytes) -> ContextUse | None:
    """Ask a server what it makes of a user's context.

    It is a word beside the answer: where it cannot be had, from an older server say, there is none.

    Args:
        config: How to reach the server.
        raw: The context's JSON.
    """
    user = {contract.USER_CONTEXT: np.array([raw], dtype=np.object_)}
    request = Request.of(contract.TOKENIZER, user, _OUTPUTS, Priority.RETRIEVAL)
    try:
        url, credentials = config.urls[0], Credentials(config)
        settings: dict[str, Any] = channel_settings(config, url)
        with InferenceServerClient(url, creds=credentials.channel, **settings) as client:
            headers = dict(config.metadata) | credentials.token
            result = client.infer(**request.arguments(config.deadline_s, headers))
        return ContextUse(read_answer(request, result)[contract.CONTEXT_USE])
    except Exception:  # noqa: BLE001  whatever it is, the answer itself is there
        return None
