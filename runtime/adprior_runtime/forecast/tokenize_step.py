"""The first step of a forecast: a user context becomes a prompt."""

from __future__ import annotations

from dataclasses import dataclass

from adprior_runtime.bundle import (
    PROMPT_FILE,
    TOKENIZER_FILE,
    TRAINED_PROFILE_KEYS,
    TRIE_DIRECTORY,
    Bundle,
)
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.prompt.context import UserContext, parse_context
from adprior_runtime.prompt.context_use import ContextMeter, ContextUse
from adprior_runtime.prompt.renderer import Prompt, PromptRenderer


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedUser:
    """A user and the prompt that the language model reads."""

    context: UserContext
    prompt: Prompt


class TokenizeStep:
    """Renders prompts with one bundle's template and tokenizer."""

    def __init__(self, bundle: Bundle) -> None:
        self.renderer = PromptRenderer.load(bundle.path(PROMPT_FILE), bundle.path(TOKENIZER_FILE))
        trie = bundle.directory / TRIE_DIRECTORY
        self._meter = ContextMeter(
            self.renderer,
            Trie.load(trie) if trie.is_dir() else None,
            bundle.manifest.training.get(TRAINED_PROFILE_KEYS),
        )

    def run(self, user: UserContext | bytes) -> TokenizedUser:
        """Render one user's prompt.

        Args:
            user: A context, or its JSON.

        Raises:
            InvalidRequestError: The JSON is not a user context.
        """
        context = user if isinstance(user, UserContext) else parse_context(user)
        return TokenizedUser(context=context, prompt=self.renderer.render(context))

    def measure(self, user: TokenizedUser) -> ContextUse:
        """Count which parts of a context its prompt shows."""
        return self._meter.measure(user.context, user.prompt)
