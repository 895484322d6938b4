"""The last step of a ranking: candidates looked up in a forecast, then the prior head."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, HEAD_FILE, Bundle
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.head.features import (
    CandidatePriors,
    KnownForecast,
    candidate_priors,
    validate_head_request,
    validate_scores,
)
from adprior_runtime.head.head import Adjusted, PriorHead


class HeadStep:
    """Ranks candidates with one bundle's head.

    Attributes:
        head: The bundle's head; it was fitted with the bundle's catalogue, forecasts and engine.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.head = PriorHead(bundle.path(HEAD_FILE))
        self.head.require_belongs(bundle.manifest)
        self._advertisers = Advertisers.load(bundle.path(ADVERTISERS_DIRECTORY))
        self._forecast_k = bundle.manifest.forecast_k

    def run(
        self,
        forecast: KnownForecast,
        candidate_ids: npt.NDArray[np.int64],
        base_logits: npt.NDArray[np.float32],
        scored_log_probs: npt.NDArray[np.float32] | None = None,
        scored_exact: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[Adjusted, CandidatePriors]:
        """Adjust one user's candidates.

        Args:
            forecast: What is known of the user.
            candidate_ids: int64 [n].
            base_logits: float32 [n].
            scored_log_probs: float32 [n], from an engine that scored the candidates.
            scored_exact: bool [n], whether these are exact.

        Raises:
            InvalidRequestError: Lengths differ, or a value is impossible.
            ModelOutputError: The engine's scores do not fit the candidates.
        """
        validate_scores(candidate_ids, scored_log_probs, scored_exact)
        validate_head_request(forecast, candidate_ids, base_logits)
        priors = candidate_priors(
            forecast,
            candidate_ids,
            self._advertisers,
            self._forecast_k,
            scored_log_probs=scored_log_probs,
            scored_exact=scored_exact,
        )
        return self.head.adjust(base_logits, priors), priors
