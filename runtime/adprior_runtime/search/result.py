"""The result of a search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adprior_runtime.catalogue.trie import Int32Array


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The result of a search.

    Attributes:
        leaves: int32 [found], trie nodes of all names found, most probable first.
        log_probs: float64 [found].
        frontier_log_mass: Log of the probability of the frontier and of the excluded names found.
            The whole catalogue is in ``leaves`` and this.
        extended_tokens: Tokens that went through the model after the prompt.
        exact: Whether the certificate holds.
    """

    leaves: Int32Array
    log_probs: npt.NDArray[np.float64]
    frontier_log_mass: float
    extended_tokens: int
    exact: bool
