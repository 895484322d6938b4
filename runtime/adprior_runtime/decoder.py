"""From token beams to advertisers, with the certificate.

Let Q be the probabilities of the disjoint prefixes that the search did not expand. For advertiser
a, L(a) is the sum of its resolved paths and m(a) the number of its unresolved ones; its true
probability is at most U(a) = L(a) + the sum of the m(a) largest of Q.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adprior_runtime.catalogue import Advertisers
from adprior_runtime.errors import InvalidRequestError
from adprior_runtime.trie import Trie, as_matrix

__all__ = ["AdvertiserDecoder", "DecodedForecast"]

_Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedForecast:
    """Advertisers, most probable first.

    Attributes:
        advertiser_ids: int64 [k].
        log_probs: float32 [k].
        names: UTF-8 [k].
        exact: Whether these are proved to be the k most probable, each with its full probability.
        missing_mass: At least the catalogue's probability that is not shown, in [0, 1].
        dropped_beams: Beams that spell no name of the catalogue.
    """

    advertiser_ids: npt.NDArray[np.int64]
    log_probs: npt.NDArray[np.float32]
    names: list[bytes]
    exact: bool
    missing_mass: float
    dropped_beams: int


class AdvertiserDecoder:
    """Decodes beams with one catalogue."""

    def __init__(self, trie: Trie, advertisers: Advertisers) -> None:
        self._trie = trie
        self._advertisers = advertisers
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
            paths: Token ids of each beam, terminator included.
            log_probs: [beams].
            top_k: How many advertisers to return at most.
            frontier_log_probs: The largest of log Q, at least as many as one advertiser has paths;
                None from an engine that does not tell: then nothing can be certified.
            frontier_log_mass: Log of the sum of all of Q; None likewise.
            excluded_ids: Advertisers to leave out.
        """
        sums, resolved, dropped = self._sum_paths(paths, np.asarray(log_probs, dtype=np.float64))
        excluded = self._rows(excluded_ids)
        rows = np.array([row for row in sums if row not in excluded], dtype=np.int64)
        advertiser_log_probs = np.array([sums[row] for row in rows], dtype=np.float64)
        probabilities = np.exp(advertiser_log_probs)
        total = float(np.exp(np.fromiter(sums.values(), dtype=np.float64)).sum())
        order = np.lexsort((rows, -advertiser_log_probs))
        shown, hidden = order[:top_k], order[top_k:]
        if frontier_log_probs is None or frontier_log_mass is None:
            exact, unseen = False, 1.0 - total
        else:
            unseen = float(np.exp(frontier_log_mass))
            unresolved = self._advertisers.path_counts[rows] - np.array(
                [resolved[row] for row in rows], dtype=np.int64
            )
            largest = np.sort(np.exp(np.asarray(frontier_log_probs, dtype=np.float64)))[::-1]
            exact = self._is_exact(
                probabilities, unresolved, shown, hidden, largest, top_k, len(excluded)
            )
        return DecodedForecast(
            advertiser_ids=self._advertisers.ids[rows[shown]],
            log_probs=np.minimum(advertiser_log_probs[shown], 0).astype(np.float32),
            names=[self._advertisers.name(row) for row in rows[shown]],
            exact=exact,
            # What was found and is not shown, excluded or beyond k, is missing from the answer too.
            missing_mass=float(np.clip(unseen + total - probabilities[shown].sum(), 0, 1)),
            dropped_beams=dropped,
        )

    def _sum_paths(
        self, paths: list[list[int]], log_probs: _Float64Array
    ) -> tuple[dict[int, float], dict[int, int], int]:
        """Add up each advertiser's distinct paths (in logs); count them, and the beams of none."""
        sums: dict[int, float] = {}
        resolved: dict[int, int] = {}
        seen: set[tuple[int, ...]] = set()
        dropped = 0
        nodes = self._trie.find(*as_matrix(paths))
        rows = np.where(nodes >= 0, self._trie.leaf_advertiser[nodes], -1).tolist()
        for path, row, log_prob in zip(paths, rows, log_probs, strict=True):
            if row < 0:
                dropped += 1
            elif (key := tuple(path)) not in seen:
                seen.add(key)
                sums[row] = float(np.logaddexp(sums.get(row, -np.inf), log_prob))
                resolved[row] = resolved.get(row, 0) + 1
        return sums, resolved, dropped

    def _rows(self, ids: npt.NDArray[np.int64] | None) -> set[int]:
        if ids is None or len(ids) == 0:
            return set()
        return {int(row) for row in self._advertisers.rows_of(ids) if row >= 0}

    def _is_exact(
        self,
        probabilities: _Float64Array,
        unresolved: npt.NDArray[np.int64],
        shown: npt.NDArray[np.int64],
        hidden: npt.NDArray[np.int64],
        largest: _Float64Array,
        top_k: int,
        excluded: int,
    ) -> bool:
        eligible = len(self._advertisers.ids) - excluded
        if len(shown) < min(top_k, eligible) or unresolved[shown].any():
            return False
        if len(shown) == eligible:
            return True
        # largest_sums[m]: the sum of the m largest of Q, which holds fewer when Q does.
        largest_sums = np.cumsum([0.0, *largest, *np.zeros(self._most_paths)])
        upper = [probabilities[i] + largest_sums[unresolved[i]] for i in hidden]
        if len(shown) + len(hidden) < eligible:
            upper.append(largest_sums[self._most_paths])
        return bool(probabilities[shown].min() > max(upper))


def beams_to_paths(
    output_ids: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32]
) -> list[list[int]]:
    """Cut padded beams to their lengths: [beams, longest], [beams] -> token paths."""
    if output_ids.ndim != 2 or len(output_ids) != len(lengths):
        raise InvalidRequestError(
            f"output_ids: shape {output_ids.shape} does not fit {len(lengths)} sequence lengths"
        )
    if len(lengths) and not 0 <= lengths.min() <= lengths.max() <= output_ids.shape[1]:
        raise InvalidRequestError(
            f"sequence_length: found {lengths.min()} to {lengths.max()}, "
            f"expected 0 to {output_ids.shape[1]}, the columns of output_ids"
        )
    return [row[:length].tolist() for row, length in zip(output_ids, lengths, strict=True)]
