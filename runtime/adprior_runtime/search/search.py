"""Trie search: the most probable advertisers, and a bound on everything else.

Only names of the catalogue are found. A score is the sum of the model's log-softmax along the
name's canonical tokens, terminator included, with no length normalisation and no renormalisation
over the trie's continuations.

There are two modes. `beam` expands the ``width`` most probable prefixes of each depth, or up to a
quarter more (see `SearchTree.expand`). `exact` expands the most probable prefixes of any depth in
rounds until the certificate holds (`adprior_runtime.search.certificate`) or the token budget is
spent. If three quarters of the budget find fewer advertisers than wanted, because all names are
about equally probable, a beam is next: it reaches whole names in any case. The frontier is the set
of prefixes that were scored and not expanded.

If names of one advertiser fill the beam, the search may find fewer advertisers than wanted, unless
the certificate holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.base import Engine
from adprior_runtime.errors import AdpriorError
from adprior_runtime.search.candidates import CandidateScores, score_candidates
from adprior_runtime.search.certificate import Standing
from adprior_runtime.search.continued_prompt import ContinuedPrompt
from adprior_runtime.search.expansion import EXPANDED
from adprior_runtime.search.ranking import largest_open
from adprior_runtime.search.result import SearchResult
from adprior_runtime.search.settings import SearchMode, SearchSettings
from adprior_runtime.search.tree import Prefilled, SearchTree, read_prompt

_ROUND_LEVEL: Final = 8
"""A round also expands levels of about this many prefixes below its own. On a CPU, a pass of a few
tokens reads all weights and costs half as much as one of 32 tokens."""


class SearchCancelledError(AdpriorError):
    """The caller is gone, or its deadline has passed."""

    grpc_code = "CANCELLED"


class TrieSearch:
    """One user's search, and the scoring of candidates that shares its work."""

    def __init__(
        self,
        engine: Engine[Any],
        trie: Trie,
        prefilled: Prefilled,
        settings: SearchSettings,
        *,
        excluded_rows: npt.ArrayLike = (),
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Begin a search after a prompt that the engine has read.

        Args:
            engine: The language model.
            trie: The catalogue's names.
            prefilled: From `adprior_runtime.search.tree.read_prompt`.
            settings: How to search.
            excluded_rows: Advertisers to leave out.
            is_cancelled: Called before each forward pass.

        Raises:
            SearchCancelledError: In `run` or `score`, if ``is_cancelled`` returns True.
        """
        self._engine, self._trie, self._state = engine, trie, prefilled[0]
        self._settings, self._is_cancelled = settings, is_cancelled
        self._is_over = False
        excluded = np.asarray(excluded_rows, dtype=np.int64)
        if len(excluded):
            excluded = np.unique(excluded)
        self._tree = SearchTree(
            engine, trie, prefilled, excluded, lambda: stop_if_cancelled(is_cancelled)
        )

    def run(self, top_k: int, *, ignored_rows: npt.ArrayLike = ()) -> SearchResult:
        """Find the ``top_k`` most probable advertisers within the mode and the budget.

        A second call goes on where the first one ended, with a budget of its own.

        Args:
            top_k: How many advertisers are wanted.
            ignored_rows: Advertisers that do not count among the ``top_k``. Unlike excluded ones,
                they are found like all others.
        """
        self._require_current()
        tree = self._tree
        ignored = np.asarray(ignored_rows, dtype=np.int64)
        ignored = np.union1d(tree.excluded_rows, ignored) if len(ignored) else tree.excluded_rows
        standing = Standing(self._trie, ignored, top_k, self._settings.margin_nats)
        if self._settings.mode is SearchMode.BEAM:
            self._beam(standing)
        else:
            self._take_in_extended_ahead()  # it costs nothing, so it is not in the budget
            budget = tree.extended_tokens + self._settings.token_budget
            self._rounds(standing, budget - self._settings.token_budget // 4)
            if not standing.is_complete(tree):
                self._reach_names(standing)
            self._rounds(standing, budget)
        leaves, log_probs = tree.prefixes.found()
        return SearchResult(
            leaves=leaves.astype(np.int32),
            log_probs=log_probs,
            frontier_log_mass=tree.prefixes.log_mass_outside(),
            extended_tokens=tree.extended_tokens,
            exact=standing.is_exact(tree),
        )

    def continue_prompt(
        self, token_ids: Sequence[int], trie: Trie, settings: SearchSettings
    ) -> TrieSearch:
        """Begin a search of another trie after the same prompt and further tokens.

        It uses the engine's state, so this search cannot `run` or `score` afterwards.

        Args:
            token_ids: The further tokens, one or more.
            trie: The other catalogue's names.
            settings: How to search it.
        """
        self._require_current()
        self._is_over = True
        engine = ContinuedPrompt(self._engine, self._state, self._tree.extended_tokens)
        stop_if_cancelled(self._is_cancelled)
        prefilled = read_prompt(engine, trie, token_ids)
        return TrieSearch(engine, trie, prefilled, settings, is_cancelled=self._is_cancelled)

    def _require_current(self) -> None:
        """Refuse to go on: the engine would number the new nodes differently than this tree."""
        if self._is_over:
            raise ValueError("another search has continued this prompt; this one cannot go on")

    def _beam(self, standing: Standing) -> None:
        """Expand the most probable prefixes of each depth, the shallowest first.

        All prefixes that a pass leaves open have one depth, and no other open prefix has it. The
        beam's next prefixes are chosen among them.
        """
        tree, table, width = self._tree, self._tree.prefixes, self._settings.width
        table.reach(width)
        table.newest = 0
        while table.newest < len(table.nodes):
            # Prefixes below the threshold cannot be among the best.
            bar = standing.threshold(tree)
            chosen = largest_open(table.scores, table.kinds, table.newest, width, bar)
            if len(chosen) == 0:
                return
            tree.expand(chosen, width)

    def _take_in_extended_ahead(self) -> None:
        """Expand what the engine has extended with the prompt: no pass is needed for it."""
        tree, table = self._tree, self._tree.prefixes
        count = min(tree.extended_ahead, self._settings.width)
        chosen = largest_open(table.scores, table.kinds, 0, count, -np.inf)
        if len(chosen):
            tree.expand(chosen, 0)

    def _rounds(self, standing: Standing, budget: int) -> None:
        """Expand the most probable open prefixes until the proof holds or the budget is spent.

        Args:
            standing: Judges the tree.
            budget: The number of extended tokens after which no further round begins.
        """
        tree, width = self._tree, self._settings.width
        while not standing.is_exact(tree) and tree.extended_tokens < budget:
            if standing.is_tied(tree):
                return
            chosen, bar = standing.choose(tree, min(width, budget - tree.extended_tokens))
            if len(chosen) == 0:
                return
            tree.expand(chosen, min(_ROUND_LEVEL, width), bar)

    def _reach_names(self, standing: Standing) -> None:
        """Expand the most probable open prefixes of each depth, as a beam, whatever is expanded."""
        tree, width = self._tree, self._settings.width
        table = tree.prefixes
        table.reach(width)
        for first, stop in self._trie.levels:
            bar = standing.threshold(tree)
            is_here = (table.nodes >= first) & (table.nodes < stop)
            kinds = np.where(is_here, table.kinds, EXPANDED).astype(np.int8)
            chosen = largest_open(table.scores, kinds, 0, width, bar)
            if len(chosen):
                tree.expand(chosen, width)

    def score(self, rows: npt.ArrayLike, *, token_budget: int | None = None) -> CandidateScores:
        """Score candidates, see `score_candidates`; the search does not change.

        Args:
            rows: [candidates], distinct rows of the catalogue.
            token_budget: Most tokens to put through the model; None takes the settings' number.
        """
        self._require_current()
        return score_candidates(
            self._tree,
            self._trie,
            np.asarray(rows, dtype=np.int64),
            self._settings.candidate_token_budget if token_budget is None else token_budget,
        )

    def score_ids(
        self, advertisers: Advertisers, candidate_ids: npt.NDArray[np.int64]
    ) -> CandidateScores:
        """Score candidates by id, as `score` does.

        A candidate off the catalogue has the log-probability -inf, not exact.

        Args:
            advertisers: The catalogue.
            candidate_ids: int64 [candidates]; an id may be repeated.
        """
        rows = advertisers.rows_of(candidate_ids)
        known = rows >= 0
        log_probs = np.full(len(rows), -np.inf)
        exact = np.zeros(len(rows), dtype=np.bool_)
        distinct, places = np.unique(rows[known], return_inverse=True)
        scores = self.score(distinct)
        log_probs[known], exact[known] = scores.log_probs[places], scores.exact[places]
        return CandidateScores(
            log_probs=log_probs, exact=exact, extended_tokens=scores.extended_tokens
        )


def stop_if_cancelled(is_cancelled: Callable[[], bool]) -> None:
    """Raise SearchCancelledError if the caller has gone away."""
    if is_cancelled():
        raise SearchCancelledError("the request was cancelled")
