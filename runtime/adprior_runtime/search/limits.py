"""The limits of one request's search: how many advertisers, and how wide a beam."""

from __future__ import annotations

from dataclasses import dataclass

from adprior_runtime.bundle import Manifest
from adprior_runtime.contract import BEAM_WIDTH, MAX_TOP_K, TOP_K
from adprior_runtime.errors import InvalidRequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchLimits:
    """The limits that one deployment sets.

    Attributes:
        default_top_k: Number of advertisers if the request names none.
        max_top_k: Largest number of advertisers of a request.
        max_beam_width: Widest beam allowed. A beam of n costs as much as asking for n advertisers.
    """

    default_top_k: int
    max_top_k: int
    max_beam_width: int

    @classmethod
    def of(cls, manifest: Manifest, names: int) -> SearchLimits:
        """Return the limits of a bundle.

        Args:
            manifest: The bundle's.
            names: Number of names in its catalogue, aliases included. If the catalogue has at most
                the allowed number of names, any ``top_k`` is cheap, so the contract's maximum
                applies.
        """
        allowed = max(manifest.max_top_k, manifest.forecast_k)
        max_top_k = MAX_TOP_K if names <= allowed else allowed
        return cls(
            default_top_k=manifest.forecast_k,
            max_top_k=max_top_k,
            max_beam_width=max(max_top_k, manifest.beam_width),
        )

    def top_k(self, requested: int | None, name: str = TOP_K) -> int:
        """Return how many advertisers to find.

        Args:
            requested: The request's number, None if it has none.
            name: The tensor with that number.

        Raises:
            InvalidRequestError: It is out of range.
        """
        if requested is None:
            return self.default_top_k
        if not 1 <= requested <= self.max_top_k:
            source = "" if self.max_top_k == MAX_TOP_K else ", the bundle's max_top_k"
            raise InvalidRequestError(
                f"{name}: found {requested}, expected 1 to {self.max_top_k}{source}"
            )
        return requested

    def beam_width(self, requested: int) -> int:
        """Return how many prefixes of one depth to expand.

        Raises:
            InvalidRequestError: ``beam_width`` is out of range.
        """
        if not 1 <= requested <= self.max_beam_width:
            raise InvalidRequestError(
                f"{BEAM_WIDTH}: found {requested}, expected 1 to {self.max_beam_width}"
            )
        return requested
