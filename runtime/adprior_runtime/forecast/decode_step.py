"""The third step of a forecast: beams become advertisers with probabilities and a certificate.

Beams that are cut off, name no advertiser, or repeat another are dropped and counted.

A forecast is *exact* if the search has proved its K advertisers (see
`adprior_runtime.search.certificate`) and the forecast shows these K. An engine that searches
without a catalogue proves nothing, and does not report the unseen probability. Then the unseen
probability is 1 minus the sum of all distinct complete beams, including beams that name no
advertiser.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, TRIE_DIRECTORY, Bundle
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.catalogue.aliases import sum_aliases
from adprior_runtime.catalogue.trie import Trie, as_matrix
from adprior_runtime.contract import CUM_LOG_PROBS
from adprior_runtime.errors import ModelOutputError
from adprior_runtime.forecast.beams import Beams, DropReason
from adprior_runtime.head.features import KnownForecast

_ROUNDING: Final = 1e-2
"""The sum of distinct beams may exceed 1 by this much: a half-precision engine rounds each beam."""
_NOBODY: Final = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedForecast(KnownForecast):
    """A forecast, most probable advertisers first.

    Attributes:
        names: UTF-8 [k].
        dropped: How many beams were dropped, by reason; no entry means none.
    """

    names: list[bytes]
    dropped: Mapping[DropReason, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """The beams that are names of the catalogue.

    Attributes:
        rows: int64 [names], the advertiser of each name.
        log_probs: float64 [names].
        complete_mass: Probability of all distinct complete beams, including beams that name no
            advertiser.
        dropped: How many other beams there were, by reason.
    """

    rows: npt.NDArray[np.int64]
    log_probs: npt.NDArray[np.float64]
    complete_mass: float
    dropped: Mapping[DropReason, int]


class DecodeStep:
    """Decodes beams with one catalogue.

    Args:
        trie: The catalogue's names.
        advertisers: The catalogue's advertisers, one for each row of the trie.
        output_length: How many tokens the engine generates (``request_output_len``).
    """

    def __init__(self, trie: Trie, advertisers: Advertisers, *, output_length: int) -> None:
        self.trie, self.advertisers = trie, advertisers
        self._output_length = output_length

    @classmethod
    def load(cls, bundle: Bundle) -> DecodeStep:
        """Map a bundle's catalogue into memory."""
        return cls(
            Trie.load(bundle.path(TRIE_DIRECTORY)),
            Advertisers.load(bundle.path(ADVERTISERS_DIRECTORY)),
            output_length=bundle.manifest.longest_name_tokens,
        )

    def run(
        self, beams: Beams, *, top_k: int, excluded_ids: npt.NDArray[np.int64] = _NOBODY
    ) -> DecodedForecast:
        """Decode one user's beams.

        Args:
            beams: From an engine that was given the same ``top_k`` and exclusions.
            top_k: How many advertisers to return at most.
            excluded_ids: Advertisers to leave out.

        Raises:
            ModelOutputError: Distinct beams' probabilities sum to more than 1.
        """
        names = self._read_names(beams)
        sums = sum_aliases(names.rows, names.log_probs)
        is_excluded = np.isin(sums.rows, self.advertisers.rows_of(excluded_ids))
        order = np.lexsort((sums.rows, -sums.log_probs))
        shown = order[~is_excluded[order]][:top_k]
        probabilities = np.exp(sums.log_probs)
        # The missing mass includes found advertisers that are not shown: excluded, or beyond k.
        found = float(probabilities[order].sum())
        if beams.frontier_log_mass is None:
            exact, unseen = False, 1.0 - names.complete_mass
        else:
            proved = beams.proved_top_k == top_k
            exact = proved and not names.dropped and not is_excluded.any()
            unseen = float(np.exp(beams.frontier_log_mass))
        return DecodedForecast(
            advertiser_ids=self.advertisers.ids[sums.rows[shown]],
            log_probs=np.minimum(sums.log_probs[shown], 0).astype(np.float32),
            names=[self.advertisers.name(row) for row in sums.rows[shown]],
            exact=exact,
            missing_mass=float(np.clip(unseen + found - probabilities[shown].sum(), 0, 1)),
            dropped=names.dropped,
        )

    def _read_names(self, beams: Beams) -> _Names:
        paths = beams.paths(terminator=self.trie.terminator, output_length=self._output_length)
        log_probs = beams.log_probs.astype(np.float64)
        nodes = self.trie.find(*as_matrix(paths))
        rows = np.where(nodes >= 0, self.trie.leaf_advertiser[nodes], -1).astype(np.int64)
        dropped: Counter[DropReason] = Counter()
        kept: list[int] = []
        seen: set[tuple[int, ...]] = set()
        complete = 0.0
        for place, path in enumerate(paths):
            if path[-1:] != [self.trie.terminator]:
                dropped[DropReason.INCOMPLETE] += 1
            elif (key := tuple(path)) in seen:
                dropped[DropReason.DUPLICATE] += 1
            else:
                seen.add(key)
                complete += float(np.exp(log_probs[place]))
                if rows[place] < 0:
                    dropped[DropReason.OFF_CATALOGUE] += 1
                else:
                    kept.append(place)
        if complete > 1 + _ROUNDING:
            raise ModelOutputError(
                f"{CUM_LOG_PROBS}: {len(seen)} distinct beams sum to probability {complete:.4g},"
                " expected at most 1; the engine must return log-probabilities, not normalised"
            )
        return _Names(
            rows=rows[kept], log_probs=log_probs[kept], complete_mass=complete, dropped=dropped
        )
