"""The settings of a search: which rule ends it, how wide it is, and how much it may cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from adprior_runtime.bundle import Manifest
from adprior_runtime.errors import ArtefactError
from adprior_runtime.search.rounding import DEFAULT_MARGIN_NATS, margin_nats


class SearchMode(StrEnum):
    """The rule that ends a search; `adprior_runtime.search.search` describes both."""

    BEAM = "beam"
    EXACT = "exact"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """The settings of a search.

    Attributes:
        mode: See the module.
        width: Number of prefixes expanded at one depth, or in one round.
        token_budget: Tokens after which an exact search begins no further round.
        candidate_token_budget: Tokens that scoring candidates may put through the model.
        margin_nats: The smallest difference of log-probabilities that proves an order, see
            `adprior_runtime.search.rounding`.
    """

    mode: SearchMode = SearchMode.EXACT
    width: int = 32
    token_budget: int = 512
    candidate_token_budget: int = 4096
    margin_nats: float = DEFAULT_MARGIN_NATS

    @classmethod
    def of(cls, manifest: Manifest) -> SearchSettings:
        """Return a bundle's settings.

        Raises:
            ArtefactError: Its search mode is unknown.
        """
        try:
            mode = SearchMode(manifest.search_mode)
        except ValueError as error:
            raise ArtefactError(f"manifest: search_mode: {error}") from error
        return cls(
            mode=mode,
            width=manifest.beam_width,
            token_budget=manifest.token_budget,
            candidate_token_budget=manifest.candidate_token_budget,
            margin_nats=margin_nats(manifest),
        )

    def for_top_k(self, top_k: int, width: int | None = None) -> SearchSettings:
        """Return the settings of a search for ``top_k`` advertisers.

        The beam is at least ``top_k`` wide. A wider beam has a larger budget in proportion, so that
        some budget remains for the rounds of an exact search.

        Args:
            top_k: How many advertisers are wanted.
            width: The beam's width; None takes the settings'.
        """
        wide = max(top_k, self.width if width is None else width)
        budget = self.token_budget * max(wide, self.width) // self.width
        return replace(self, width=wide, token_budget=budget)
