"""From token beams to advertisers, with the certificate.

Beams that are cut off, spell no name, or come again are dropped and counted.

Let Q be the probabilities of the disjoint prefixes that the search did not expand. For advertiser
a, L(a) is the sum of its resolved paths and m(a) the number of its unresolved ones; its true
probability is at most U(a) = L(a) + the sum of the m(a) largest of Q. The forecast is certified
when every advertiser in it has all its paths resolved, and the least log L in it exceeds every
other log U by more than the margin of `adprior_runtime.search.rounding`. An engine that searches
without a catalogue tells nothing of Q: what it leaves unseen is all but its distinct complete
beams, those of no advertiser included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.catalogue.trie import Trie, as_matrix
from adprior_runtime.errors import ModelOutputError
from adprior_runtime.forecast.beams import DropReason
from adprior_runtime.search.log_sums import log_cumulative_sums

_Float64Array = npt.NDArray[np.float64]
_WIRE_ROUNDING = 2.0**-23
"""Of two log-probabilities in FP32, relative to their size: what the wire may move them apart."""

_ROUNDING = 1e-2
"""Distinct beams may sum so far above 1: an engine of half precision computes each by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedForecast:
    """Advertisers, most probable first.

    Attributes:
        advertiser_ids: int64 [k].
        log_probs: float32 [k].
        names: UTF-8 [k].
        exact: Whether these are proved to be the k most probable, each with its full probability.
        missing_mass: At least the catalogue's probability that is not shown, in [0, 1].
        dropped: How many beams were, by reason; no entry means none.
    """

    advertiser_ids: npt.NDArray[np.int64]
    log_probs: npt.NDArray[np.float32]
    names: list[bytes]
    exact: bool
    missing_mass: float
    dropped: Mapping[DropReason, int]


@dataclass(slots=True)
class _Sums:
    """What the beams add up to.

    Attributes:
        log_probs: Of each advertiser's distinct paths, by its row.
        resolved: How many those are.
        complete: Probability of all distinct complete beams.
        dropped: Beams that are in none of the rows.
    """

    log_probs: dict[int, float] = field(default_factory=dict)
    resolved: Counter[int] = field(default_factory=Counter)
    complete: float = 0.0
    dropped: Counter[DropReason] = field(default_factory=Counter)


class AdvertiserDecoder:
    """Decodes beams with one catalogue.

    Args:
        trie: Its names.
        advertisers: Its advertisers, one for each row of the trie's.
        margin_nats: The least difference of log-probabilities that proves an order.
    """

    def __init__(self, trie: Trie, advertisers: Advertisers, *, margin_nats: float) -> None:
        self._trie = trie
        self._advertisers = advertisers
        self._margin = margin_nats
        self._most_paths = int(advertisers.path_counts.max())

    def decode(
        self,
        paths: list[list[int]],
        log_probs: npt.ArrayLike,
        *,
        top_k: int,
        frontier_log_probs: npt.ArrayLike | None = None,
        frontier_log_mass: float | None = None,
        excluded_ids: npt.NDArray[np.int64] | None = None,
    ) -> DecodedForecast:
        """Decode one user's beams.

        Args:
            paths: Token ids of each beam; one without a terminator at its end is incomplete.
            log_probs: [beams].
            top_k: How many advertisers to return at most.
            frontier_log_probs: The largest of log Q, at least as many as one advertiser has paths;
                None from an engine that does not tell: then nothing can be certified.
            frontier_log_mass: Log of the sum of all of Q; None likewise.
            excluded_ids: Advertisers to leave out.

        Raises:
            ModelOutputError: Distinct beams' probabilities sum to more than 1.
        """
        sums = self._sum_paths(paths, np.asarray(log_probs, dtype=np.float64))
        excluded = self._rows(excluded_ids)
        rows = np.array([row for row in sums.log_probs if row not in excluded], dtype=np.int64)
        advertiser_log_probs = np.array([sums.log_probs[row] for row in rows], dtype=np.float64)
        probabilities = np.exp(advertiser_log_probs)
        total = float(np.exp(np.fromiter(sums.log_probs.values(), dtype=np.float64)).sum())
        order = np.lexsort((rows, -advertiser_log_probs))
        shown, hidden = order[:top_k], order[top_k:]
        if frontier_log_probs is None or frontier_log_mass is None:
            exact, unseen = False, 1.0 - sums.complete
        else:
            unseen = float(np.exp(frontier_log_mass))
            unresolved = self._advertisers.path_counts[rows] - np.array(
                [sums.resolved[row] for row in rows], dtype=np.int64
            )
            exact = self._is_exact(
                advertiser_log_probs,
                unresolved,
                shown,
                hidden,
                np.asarray(frontier_log_probs, dtype=np.float64),
                top_k,
                len(excluded),
            )
        return DecodedForecast(
            advertiser_ids=self._advertisers.ids[rows[shown]],
            log_probs=np.minimum(advertiser_log_probs[shown], 0).astype(np.float32),
            names=[self._advertisers.name(row) for row in rows[shown]],
            exact=exact,
            # What was found and is not shown, excluded or beyond k, is missing from the answer too.
            missing_mass=float(np.clip(unseen + total - probabilities[shown].sum(), 0, 1)),
            dropped=sums.dropped,
        )

    def _sum_paths(self, paths: list[list[int]], log_probs: _Float64Array) -> _Sums:
        """Add up each advertiser's distinct paths (in logs), and count the beams of none."""
        sums = _Sums()
        seen: set[tuple[int, ...]] = set()
        nodes = self._trie.find(*as_matrix(paths))
        rows = np.where(nodes >= 0, self._trie.leaf_advertiser[nodes], -1).tolist()
        for path, row, log_prob in zip(paths, rows, log_probs, strict=True):
            if not path or path[-1] != self._trie.terminator:
                sums.dropped[DropReason.INCOMPLETE] += 1
            elif (key := tuple(path)) in seen:
                sums.dropped[DropReason.DUPLICATE] += 1
            else:
                seen.add(key)
                sums.complete += float(np.exp(log_prob))
                if row < 0:
                    sums.dropped[DropReason.OFF_CATALOGUE] += 1
                    continue
                sums.log_probs[row] = float(
                    np.logaddexp(sums.log_probs.get(row, -np.inf), log_prob)
                )
                sums.resolved[row] += 1
        if sums.complete > 1 + _ROUNDING:
            raise ModelOutputError(
                f"cum_log_probs: {len(seen)} distinct beams sum to probability {sums.complete:.4g},"
                " expected at most 1; the engine must return log-probabilities, not normalised"
            )
        return sums

    def _rows(self, ids: npt.NDArray[np.int64] | None) -> set[int]:
        if ids is None or len(ids) == 0:
            return set()
        rows = np.unique(self._advertisers.rows_of(ids))
        return set(rows[rows >= 0].tolist())

    def _is_exact(
        self,
        log_probs: _Float64Array,
        unresolved: npt.NDArray[np.int64],
        shown: npt.NDArray[np.int64],
        hidden: npt.NDArray[np.int64],
        frontier_log_probs: _Float64Array,
        top_k: int,
        excluded: int,
    ) -> bool:
        eligible = len(self._advertisers.ids) - excluded
        if len(shown) < min(top_k, eligible) or unresolved[shown].any():
            return False
        if len(shown) == eligible:
            return True
        sums = log_cumulative_sums(frontier_log_probs, self._most_paths)
        upper = np.logaddexp(log_probs[hidden], sums[unresolved[hidden]])
        highest = float(upper.max(initial=-np.inf))
        if len(shown) + len(hidden) < eligible:
            highest = max(highest, float(sums[-1]))
        least = float(log_probs[shown].min())
        return least - self._margin - _WIRE_ROUNDING * abs(least) > highest
