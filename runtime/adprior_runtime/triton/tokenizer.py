"""Model ``tokenizer``: user context to prompt, and the constants that the engine wants."""

from __future__ import annotations

import logging
from collections.abc import Callable

from adprior_runtime import contract
from adprior_runtime.bundle import (
    PROMPT_FILE,
    TOKENIZER_FILE,
    TRAINED_PROFILE_KEYS,
    TRIE_DIRECTORY,
    Bundle,
)
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.prompt.context import parse_context
from adprior_runtime.prompt.context_use import ContextMeter, ContextUse
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.triton.backend import Answer, RequestModel, Tensors
from adprior_runtime.triton.metrics import (
    DROPPED_EVENTS,
    EVENTS,
    HISTORY_ADVERTISERS,
    PROFILE_KEYS,
    PROMPT_TOKENS,
    DroppedEvent,
    KeyUse,
    Known,
)
from adprior_runtime.triton.unused_log import UnusedLog

_log = logging.getLogger("adprior")


class TritonPythonModel(RequestModel):
    """Refuses malformed contexts here, before any model work is spent on them."""

    name = contract.TOKENIZER

    def load(self, bundle: Bundle) -> None:
        """Load template and tokenizer."""
        self._renderer = PromptRenderer.load(bundle.path(PROMPT_FILE), bundle.path(TOKENIZER_FILE))
        self._manifest = bundle.manifest
        trie = bundle.directory / TRIE_DIRECTORY
        self._meter = ContextMeter(
            self._renderer,
            Trie.load(trie) if trie.is_dir() else None,
            bundle.manifest.training.get(TRAINED_PROFILE_KEYS),
        )
        self._unused = UnusedLog(lambda line: _log.warning("%s: %s", self.name, line))

    def answer(self, inputs: Tensors, is_cancelled: Callable[[], bool]) -> Answer:  # noqa: ARG002
        """Render one user's prompt."""
        context = parse_context(inputs[contract.USER_CONTEXT][0])
        prompt = self._renderer.render(context)
        token_ids = prompt.token_ids
        use = self._meter.measure(context, prompt)
        self.metrics.count(PROMPT_TOKENS, len(token_ids))
        self.metrics.record(use, self._count)
        return {
            contract.INPUT_IDS: token_ids,
            contract.INPUT_LENGTHS: [len(token_ids)],
            contract.REQUEST_OUTPUT_LEN: [self._manifest.longest_name_tokens],
            contract.BEAM_WIDTH: [self._manifest.beam_width],
            contract.END_ID: [self._renderer.end_id],
            contract.PAD_ID: [self._renderer.end_id],
            contract.RETURN_LOG_PROBS: [True],
            contract.CONTEXT_USE: use.counts(),
            contract.BUNDLE_ID: [self._manifest.bundle_id.encode()],
            contract.ANSWER_VERSION: [contract.CONTRACT_VERSION.encode()],
        }

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
