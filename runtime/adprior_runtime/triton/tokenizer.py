"""Model ``tokenizer``: user context to prompt, and the constants that the engine wants."""

from __future__ import annotations

from collections.abc import Callable

from adprior_runtime import contract
from adprior_runtime.bundle import PROMPT_FILE, TOKENIZER_FILE, Bundle
from adprior_runtime.context import parse_context
from adprior_runtime.prompt import PromptRenderer
from adprior_runtime.triton.backend import Answer, RequestModel, Tensors
from adprior_runtime.triton.metrics import DROPPED_EVENTS, EVENTS, PROMPT_TOKENS, DroppedEvent

__all__ = ["TritonPythonModel"]


class TritonPythonModel(RequestModel):
    """Refuses malformed contexts here, before any model work is spent on them."""

    name = contract.TOKENIZER

    def load(self, bundle: Bundle) -> None:
        """Load template and tokenizer."""
        self._renderer = PromptRenderer.load(bundle.path(PROMPT_FILE), bundle.path(TOKENIZER_FILE))
        self._manifest = bundle.manifest

    def answer(self, inputs: Tensors, is_cancelled: Callable[[], bool]) -> Answer:  # noqa: ARG002
        """Render one user's prompt."""
        context = parse_context(inputs[contract.USER_CONTEXT][0])
        prompt = self._renderer.render(context)
        token_ids = prompt.token_ids
        self.metrics.count(PROMPT_TOKENS, len(token_ids))
        self.metrics.count(EVENTS, len(context.history) + context.dropped_events)
        self.metrics.count(DROPPED_EVENTS, context.dropped_events, DroppedEvent.AFTER_AS_OF)
        self.metrics.count(DROPPED_EVENTS, prompt.dropped_events, DroppedEvent.OVER_BUDGET)
        return {
            contract.INPUT_IDS: token_ids,
            contract.INPUT_LENGTHS: [len(token_ids)],
            contract.REQUEST_OUTPUT_LEN: [self._manifest.longest_name_tokens],
            contract.BEAM_WIDTH: [self._manifest.beam_width],
            contract.END_ID: [self._renderer.end_id],
            contract.PAD_ID: [self._renderer.end_id],
            contract.RETURN_LOG_PROBS: [True],
        }
