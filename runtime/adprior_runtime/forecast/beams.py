"""Beams, as an engine returns them, and the token paths that they stand for.

The embedded engine returns names of the catalogue, terminator included. TensorRT-LLM's stock beam
search does not know the catalogue. A finished beam includes the terminator's probability, not its
token. A beam cut off has exactly the output length. The source is NVIDIA/TensorRT-LLM,
``cpp/tensorrt_llm/kernels/beamSearchKernels/`` (commit 2a9abd9536aa62ad3e4b9314be9286b1b1be523b)
and ``cpp/tensorrt_llm/batch_manager/`` (commit b35ac1b64368513d215c57d2ed01d62d910df8da,
1.2.0rc2); this was read, not run.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.contract import (
    CUM_LOG_PROBS,
    FRONTIER_LOG_MASS,
    OUTPUT_IDS,
    SEQUENCE_LENGTH,
)
from adprior_runtime.errors import ModelOutputError
from adprior_runtime.search.result import SearchResult

_ROUNDING: Final = 1e-4
"""A sum of FP32 log-probabilities may exceed 0 by this much."""
_MASS_ROUNDING: Final = 1e-2
"""The log of many probabilities' sum may exceed 0 by this much."""


class DropReason(StrEnum):
    """The reason why a beam adds nothing to a forecast.

    Attributes:
        INCOMPLETE: Cut off before its terminator: its probability is that of a prefix.
        OFF_CATALOGUE: Complete, but no advertiser's name.
        DUPLICATE: Complete, but the same as an earlier beam.
    """

    INCOMPLETE = "incomplete"
    OFF_CATALOGUE = "off_catalogue"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beams:
    """The beams that an engine returns for one user.

    Attributes:
        output_ids: int32 [beams, longest], padded on the right.
        lengths: int32 [beams], tokens of each beam.
        log_probs: float32 or float64 [beams].
        proved_top_k: K if the search has proved that these beams contain all names of the K most
            probable advertisers that the request does not exclude; else 0. An engine that searches
            without the catalogue proves nothing.
        frontier_log_mass: Log of the probability of all names that these beams do not contain; None
            from an engine that searches without the catalogue.
    """

    output_ids: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]
    log_probs: npt.NDArray[Any]
    proved_top_k: int = 0
    frontier_log_mass: float | None = None

    def __post_init__(self) -> None:
        """Refuse impossible beams as an error of the engine, not of the caller."""
        ids, lengths = self.output_ids, self.lengths
        if ids.ndim != 2 or len(ids) != len(lengths):
            raise ModelOutputError(
                f"{OUTPUT_IDS}: shape {ids.shape} does not fit {len(lengths)} sequence lengths"
            )
        if len(lengths) and not 0 <= lengths.min() <= lengths.max() <= ids.shape[1]:
            raise ModelOutputError(
                f"{SEQUENCE_LENGTH}: found {lengths.min()} to {lengths.max()}, "
                f"expected 0 to {ids.shape[1]}, the columns of {OUTPUT_IDS}"
            )
        if self.log_probs.shape != lengths.shape or not (self.log_probs <= _ROUNDING).all():
            raise ModelOutputError(
                f"{CUM_LOG_PROBS}: expected {len(lengths)} log-probabilities, "
                f"one for each of {SEQUENCE_LENGTH}"
            )
        mass = self.frontier_log_mass
        if mass is not None and not mass <= _MASS_ROUNDING:  # written so that NaN fails
            raise ModelOutputError(
                f"{FRONTIER_LOG_MASS}: found {mass:.6g}, expected a log-probability"
            )

    @classmethod
    def of_search(cls, trie: Trie, result: SearchResult, top_k: int) -> Self:
        """Return the names that a search for ``top_k`` advertisers or interests has found."""
        output_ids, lengths = trie.paths(result.leaves)
        return cls(
            output_ids=output_ids,
            lengths=lengths,
            log_probs=result.log_probs,
            proved_top_k=top_k if result.exact else 0,
            frontier_log_mass=result.frontier_log_mass,
        )

    def paths(self, *, terminator: int, output_length: int) -> list[list[int]]:
        """Return each beam's tokens up to its terminator, which is added if the engine omits it.

        Args:
            terminator: The token that ends a name.
            output_length: Most tokens that the engine generates (``request_output_len``).

        Returns:
            Each path ends with its only terminator; a beam that was cut off has no terminator.
        """
        rows = zip(self.output_ids.tolist(), self.lengths.tolist(), strict=True)
        return [_complete(row[:length], terminator, output_length) for row, length in rows]


def _complete(path: list[int], terminator: int, output_length: int) -> list[int]:
    if terminator in path:
        return path[: path.index(terminator) + 1]
    return [*path, terminator] if len(path) < output_length else path
