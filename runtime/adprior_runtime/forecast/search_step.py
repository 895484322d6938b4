"""The second step of a forecast: the language model's most probable names of the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Final

import numpy as np
import numpy.typing as npt

from adprior_runtime.bundle import (
    ADVERTISERS_DIRECTORY,
    TRIE_DIRECTORY,
    Bundle,
)
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.registry import ENGINES
from adprior_runtime.errors import ArtefactError
from adprior_runtime.forecast.beams import Beams
from adprior_runtime.forecast.interests import InterestCatalogue
from adprior_runtime.search.candidates import CandidateScores
from adprior_runtime.search.limits import SearchLimits
from adprior_runtime.search.result import SearchResult
from adprior_runtime.search.search import TrieSearch, stop_if_cancelled
from adprior_runtime.search.settings import SearchMode, SearchSettings
from adprior_runtime.search.tree import read_prompt

_BOUNDED_ROWS: Final = 16_384
_NOBODY: Final = np.zeros(0, dtype=np.int64)
_WARM_UP_TOKENS: Final = 128
"""Tokens of a prompt of middle length, after those that all prompts begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedUser:
    """The result of a search, which can also score candidates at little cost.

    Attributes:
        beams: The names found.
        extended_tokens: Tokens that went through the model after the prompt.
        search: The search, which can score candidates.
        advertisers: The catalogue.
    """

    beams: Beams
    extended_tokens: int
    search: TrieSearch
    advertisers: Advertisers

    def score(self, candidate_ids: npt.NDArray[np.int64]) -> CandidateScores:
        """Score candidates by id: int64 [candidates]; see `TrieSearch.score_ids`."""
        return self.search.score_ids(self.advertisers, candidate_ids)

    def look_further(self, top_k: int, known_ids: npt.NDArray[np.int64]) -> SearchResult:
        """Find the ``top_k`` most probable advertisers that are not among the known ones.

        The search goes on where it ended; ``beams`` stay as they are.
        """
        known = self.advertisers.rows_of(known_ids)
        return self.search.run(top_k, ignored_rows=known[known >= 0])

    def score_catalogue(self) -> CandidateScores:
        """Score or bound every advertiser of the catalogue, without another pass."""
        count = len(self.advertisers.ids)
        # In parts: a search puts names into a matrix that is as wide as the longest name.
        parts = [
            self.search.score(np.arange(start, min(start + _BOUNDED_ROWS, count)), token_budget=0)
            for start in range(0, count, _BOUNDED_ROWS)
        ]
        return CandidateScores(
            log_probs=np.concatenate([part.log_probs for part in parts]),
            exact=np.concatenate([part.exact for part in parts]),
            extended_tokens=0,
        )


class SearchStep:
    """Searches one bundle's catalogue with its language model.

    Args:
        bundle: A bundle for an engine that runs in this process.
        threads: Threads of one forward pass; 0 takes the processors this process may use.
        device: ``cpu`` or ``cuda``.

    Attributes:
        limits: The limits of a request. `run` itself does not enforce them.
        interests: The bundle's interests, None if it has none.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 0, device: str = "cpu") -> None:
        load = ENGINES[bundle.manifest.engine].loader
        if load is None:
            raise ArtefactError(
                f"{bundle.directory}: a bundle for engine {bundle.manifest.engine}, which runs in "
                "tritonserver only; expected a bundle whose engine runs in this process"
            )
        self._engine = load(bundle, threads=threads, device=device)
        self._manifest = bundle.manifest
        self._trie = Trie.load(bundle.path(TRIE_DIRECTORY))
        self._advertisers = Advertisers.load(bundle.path(ADVERTISERS_DIRECTORY))
        self.interests = InterestCatalogue.load(bundle)
        self._settings = SearchSettings.of(bundle.manifest)
        self.limits = SearchLimits.of(bundle.manifest, len(self._trie.leaf_nodes))

    def warm_up(self) -> None:
        """Search once for no user, so that the first request does not pay for what starts lazily.

        The prompt is what all prompts begin with, repeated to a middle length. An exact search
        would spend its budget on such a prompt, so the search is a beam's.
        """
        head = self._manifest.prompt_head_ids or (0,)
        room = self._engine.max_positions - self._manifest.longest_name_tokens - 1
        prompt_ids = list(islice(cycle(head), max(1, min(len(head) + _WARM_UP_TOKENS, room))))
        top_k = self.limits.default_top_k
        settings = replace(self._settings.for_top_k(top_k), mode=SearchMode.BEAM)
        prefilled = read_prompt(self._engine, self._trie, prompt_ids, settings.width)
        TrieSearch(self._engine, self._trie, prefilled, settings).run(top_k)

    def run(
        self,
        prompt_ids: Sequence[int],
        *,
        top_k: int,
        beam_width: int | None = None,
        excluded_ids: npt.NDArray[np.int64] = _NOBODY,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> SearchedUser:
        """Search for one user's most probable advertisers.

        Args:
            prompt_ids: The prompt's tokens.
            top_k: How many advertisers are wanted.
            beam_width: Prefixes of one depth that are expanded; None takes the bundle's.
            excluded_ids: Advertisers to leave out.
            is_cancelled: Called before each forward pass.

        Raises:
            SearchCancelledError: ``is_cancelled`` returned True.
            InvalidRequestError: The prompt has too many tokens, or an unknown one.
        """
        excluded = self._advertisers.rows_of(excluded_ids)
        settings = self._settings.for_top_k(top_k, beam_width)
        stop_if_cancelled(is_cancelled)
        search = TrieSearch(
            self._engine,
            self._trie,
            read_prompt(self._engine, self._trie, prompt_ids, settings.width),
            settings,
            excluded_rows=excluded[excluded >= 0],
            is_cancelled=is_cancelled,
        )
        result = search.run(top_k)
        return SearchedUser(
            beams=Beams.of_search(self._trie, result, top_k),
            extended_tokens=result.extended_tokens,
            search=search,
            advertisers=self._advertisers,
        )
