"""The first two levels of a trie: the tokens that begin a name, and those that may follow each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False, kw_only=True)
class FirstTokens:
    """Part of one trie, and the same object for all searches of it.

    Attributes:
        token_ids: int32 [m], the tokens that begin a name, rising.
        offsets: int32 [m + 1]: ``next_ids[offsets[i]:offsets[i + 1]]`` may follow ``token_ids[i]``.
        next_ids: int32 [c].
    """

    token_ids: Int32Array
    offsets: Int32Array
    next_ids: Int32Array

    @cached_property
    def range(self) -> tuple[int, int]:
        """The smallest and the largest token of both levels."""
        both = [level for level in (self.token_ids, self.next_ids) if len(level)]
        return min(int(each.min()) for each in both), max(int(each.max()) for each in both)

    def most_next(self, count: int) -> int:
        """Return the most tokens that may follow ``count`` of the first ones, in all."""
        return int(self._largest_sums[min(count, len(self.token_ids))])

    @cached_property
    def _largest_sums(self) -> npt.NDArray[np.int64]:
        counts = np.sort(np.diff(self.offsets))[::-1]
        return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
