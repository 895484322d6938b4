"""Interests: a second catalogue of the bundle, forecast after the same prompt.

The model reads the prompt once. The advertisers follow it directly, the interests follow it and the
template's ``interest_tail``, which the search puts through the model first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from adprior_runtime.bundle import INTEREST_TRIE_DIRECTORY, INTERESTS_DIRECTORY, Bundle
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.contract import INTEREST_TOP_K
from adprior_runtime.forecast.beams import Beams
from adprior_runtime.forecast.decode_step import DecodeStep
from adprior_runtime.search.limits import SearchLimits
from adprior_runtime.search.settings import SearchSettings

if TYPE_CHECKING:  # the decoder, which imports this module, needs no compiled search
    from adprior_runtime.search.search import TrieSearch


@dataclass(frozen=True, slots=True, kw_only=True)
class Interests:
    """The interests of one user, most probable first.

    Attributes:
        ids: int64 [n].
        log_probs: float32 [n].
        names: UTF-8 [n].
    """

    ids: npt.NDArray[np.int64]
    log_probs: npt.NDArray[np.float32]
    names: list[bytes]

    @classmethod
    def none(cls) -> Self:
        """Return no interests: none were asked for, or the bundle has none."""
        return cls(ids=np.zeros(0, np.int64), log_probs=np.zeros(0, np.float32), names=[])


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedInterests:
    """The result of a search for interests.

    Attributes:
        beams: The names found.
        extended_tokens: Tokens that went through the model for them.
    """

    beams: Beams
    extended_tokens: int


class InterestCatalogue:
    """The interests of a bundle: searched by an engine, and decoded.

    Args:
        bundle: A bundle with interests.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._trie = Trie.load(bundle.path(INTEREST_TRIE_DIRECTORY))
        table = Advertisers.load(bundle.path(INTERESTS_DIRECTORY))
        depth = self._trie.depth
        self._decoder = DecodeStep(self._trie, table, output_length=depth)
        self._tail_ids = bundle.manifest.interest_tail_ids
        self._settings = SearchSettings.of(replace(bundle.manifest, longest_name_tokens=depth))
        self._limits = SearchLimits.of(bundle.manifest, len(self._trie.leaf_nodes))

    @classmethod
    def load(cls, bundle: Bundle) -> Self | None:
        """Map a bundle's interests into memory; return None if it has none."""
        return cls(bundle) if bundle.has_interests else None

    def top_k(self, requested: int | None) -> int:
        """Return how many interests to find; 0 if the request does not ask for any.

        Raises:
            InvalidRequestError: ``INTEREST_TOP_K`` is out of range.
        """
        return self._limits.top_k(requested, INTEREST_TOP_K) if requested else 0

    def search(self, advertisers: TrieSearch, top_k: int) -> SearchedInterests:
        """Find the most probable interests, with the bundle's search mode and budget.

        Args:
            advertisers: The search after the user's prompt; it cannot go on afterwards.
            top_k: How many interests are wanted.

        Raises:
            SearchCancelledError: The caller is gone.
        """
        search = advertisers.continue_prompt(
            self._tail_ids, self._trie, self._settings.for_top_k(top_k)
        )
        result = search.run(top_k)
        return SearchedInterests(
            beams=Beams.of_search(self._trie, result, top_k),
            extended_tokens=len(self._tail_ids) + result.extended_tokens,
        )

    def decode(self, beams: Beams, top_k: int) -> Interests:
        """Return the interests that an engine's beams stand for, ``top_k`` at most."""
        found = self._decoder.run(beams, top_k=top_k)
        return Interests(ids=found.advertiser_ids, log_probs=found.log_probs, names=found.names)
