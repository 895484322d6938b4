"""Retrieval: which advertisers is this user likely to act on?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from adprior_client import codec
from adprior_client._connection import Connection
from adprior_client.types import Forecast, User
from adprior_runtime import contract

__all__ = ["RetrievalClient"]

_OUTPUTS: Final = (
    contract.ADVERTISER_IDS,
    contract.LOG_PROBS,
    contract.ADVERTISER_NAMES,
    contract.EXACT,
    contract.MISSING_MASS,
    contract.BUNDLE_ID,
)


class RetrievalClient(Connection):
    """Forecasts advertisers for one user at a time; threads may share a client.

    Args:
        url: ``HOST:PORT`` of the server's gRPC endpoint.
        timeout_s: Deadline of each call, in seconds.

    Raises:
        InvalidArgumentError: The address or the deadline is malformed.
    """

    def forecast(
        self,
        user: User | Mapping[str, Any] | bytes,
        k: int | None = None,
        *,
        excluded_advertiser_ids: Sequence[int] = (),
    ) -> Forecast:
        """Return the most probable advertisers for ``user``, most probable first.

        Args:
            user: The user, or their context as a JSON object (a dict) or as JSON bytes.
            k: How many, 1 to ``contract.MAX_TOP_K``, or as many as the server's bundle says, which
                is what its prior head was fitted with; fewer come when the catalogue has fewer.
            excluded_advertiser_ids: Advertisers that must not come out (frequency caps, blocks).

        Raises:
            ClientError: See `adprior_client.errors` for what each kind means.
        """
        tensors = {contract.USER_CONTEXT: codec.encode_user(user)}
        if k is not None:
            tensors[contract.TOP_K] = codec.encode_top_k(k)
        excluded = codec.encode_ids(excluded_advertiser_ids, "excluded_advertiser_ids")
        if excluded.size:
            tensors[contract.EXCLUDED_ADVERTISER_IDS] = excluded
        return codec.decode_forecast(self._infer(contract.ADVERTISER_RETRIEVAL, tensors, _OUTPUTS))
