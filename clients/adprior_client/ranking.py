"""Ranking: the ranker's logits with a calibrated prior added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from adprior_client import codec
from adprior_client._connection import Connection
from adprior_client.errors import InvalidArgumentError
from adprior_client.types import Forecast, Ranking, User
from adprior_runtime import contract

__all__ = ["RankingClient"]

_OUTPUTS: Final = (
    contract.ADJUSTED_LOGITS,
    contract.CANDIDATE_LOG_PROBS,
    contract.CANDIDATE_STATUS,
    contract.BUNDLE_ID,
)


class RankingClient(Connection):
    """Adds priors to one user's candidates at a time; threads may share a client.

    Args:
        url: ``HOST:PORT`` of the server's gRPC endpoint.
        timeout_s: Deadline of each call, in seconds.

    Raises:
        InvalidArgumentError: The address or the deadline is malformed.
    """

    def score(
        self,
        user_or_forecast: User | Mapping[str, Any] | bytes | Forecast,
        candidates: Sequence[int],
        base_logits: Sequence[float],
    ) -> Ranking:
        """Return the candidates, in the order given, with adjusted logits.

        A user costs one run of the LLM. A forecast, from a retrieval call moments ago or from a
        bulk run, costs none. No candidates, no call.

        Args:
            user_or_forecast: The user (or their context, as a dict or JSON bytes), or a forecast
                of theirs; a forecast may be empty.
            candidates: Advertiser id of each candidate; the same one may come several times.
            base_logits: The ranker's logit of each candidate; sent, and returned, as FP32.

        Raises:
            ClientError: See `adprior_client.errors` for what each kind means.
        """
        ids = codec.encode_ids(candidates, "candidates")
        logits = codec.encode_logits(base_logits, "base_logits")
        if ids.size != logits.size:
            raise InvalidArgumentError(
                f"base_logits: found {logits.size}, expected {ids.size}, one for each candidate"
            )
        asked = {contract.CANDIDATE_ADVERTISER_IDS: ids, contract.BASE_LOGITS: logits}
        if isinstance(user_or_forecast, Forecast):
            forecast = user_or_forecast
            tensors = codec.encode_forecast(forecast) | asked
            if not ids.size:
                return Ranking(candidates=(), bundle_id=forecast.bundle_id, exact=forecast.exact)
            answer = self._infer(contract.PRIOR_HEAD, tensors, _OUTPUTS)
            return codec.decode_ranking(asked, answer, exact=forecast.exact)
        tensors = {contract.USER_CONTEXT: codec.encode_user(user_or_forecast)} | asked
        if not ids.size:
            return Ranking(candidates=(), bundle_id="", exact=None)
        outputs = (*_OUTPUTS, contract.EXACT)
        answer = self._infer(contract.ADVERTISER_RANKING, tensors, outputs)
        return codec.decode_ranking(asked, answer, exact=codec.decode_exact(answer))
