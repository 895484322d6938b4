"""Model ``tokenizer``: user context to prompt, and the constants that the engine needs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from adprior_runtime import contract
from adprior_runtime.bundle import Bundle
from adprior_runtime.forecast.tokenize_step import TokenizeStep
from adprior_runtime.prompt.context_use import ContextUse
from adprior_runtime.search.rounding import margin_nats
from adprior_runtime.triton.metrics import (
    DIRECT_REQUESTS,
    DROPPED_EVENTS,
    EVENTS,
    HISTORY_ADVERTISERS,
    PROFILE_KEYS,
    PROMPT_TOKENS,
    DroppedEvent,
    KeyUse,
    Known,
)
from adprior_runtime.triton.request_model import Answer, RequestModel, Tensors
from adprior_runtime.triton.unused_context_log import UnusedContextLog

_log = logging.getLogger("adprior")


class TritonPythonModel(RequestModel):
    """Refuses malformed contexts before any model work is spent on them."""

    name = contract.TOKENIZER

    def load(self, bundle: Bundle) -> None:
        """Load template and tokenizer."""
        self._step = TokenizeStep(bundle)
        self._manifest = bundle.manifest
        self._unused = UnusedContextLog(lambda line: _log.warning("%s: %s", self.name, line))

    def answer(self, inputs: Tensors, is_cancelled: Callable[[], bool]) -> Answer:  # noqa: ARG002
        """Render one user's prompt."""
        user = self._step.run(inputs[contract.USER_CONTEXT][0])
        token_ids = user.prompt.token_ids
        use = self._step.measure(user)
        self.metrics.count(PROMPT_TOKENS, len(token_ids))
        self.metrics.record(use, self._count)
        end_id = self._step.renderer.end_id
        return {
            contract.INPUT_IDS: token_ids,
            contract.INPUT_LENGTHS: [len(token_ids)],
            contract.REQUEST_OUTPUT_LEN: [self._manifest.longest_name_tokens],
            contract.BEAM_WIDTH: [self._manifest.beam_width],
            contract.END_ID: [end_id],
            contract.PAD_ID: [end_id],
            contract.RETURN_LOG_PROBS: [True],
            contract.CONTEXT_USE: use.counts(),
            contract.PROOF_MARGIN: [margin_nats(self._manifest)],
            contract.BUNDLE_ID: [self._manifest.bundle_id.encode()],
            contract.ANSWER_VERSION: [contract.CONTRACT_VERSION.encode()],
        }

    def _response(self, outputs: Answer, wanted: set[str]) -> Any:
        if not wanted.isdisjoint(contract.CONTEXT_READING):
            self.metrics.count(DIRECT_REQUESTS)
        return super()._response(outputs, wanted)

    def _count(self, use: ContextUse) -> None:
        self._unused.add(use)
        self.metrics.count(EVENTS, use.events)
        self.metrics.count(DROPPED_EVENTS, use.after_as_of, DroppedEvent.AFTER_AS_OF)
        self.metrics.count(DROPPED_EVENTS, use.over_budget, DroppedEvent.OVER_BUDGET)
        self.metrics.count(PROFILE_KEYS, use.denied_keys, KeyUse.DENIED)
        if use.known_advertisers is not None:
            strangers = use.advertisers - use.known_advertisers
            self.metrics.count(HISTORY_ADVERTISERS, use.known_advertisers, Known.KNOWN)
            self.metrics.count(HISTORY_ADVERTISERS, strangers, Known.UNKNOWN)
        if use.unknown_keys is not None:
            known = use.profile_keys - use.denied_keys - use.unknown_keys
            self.metrics.count(PROFILE_KEYS, known, KeyUse.KNOWN)
            self.metrics.count(PROFILE_KEYS, use.unknown_keys, KeyUse.UNKNOWN)
