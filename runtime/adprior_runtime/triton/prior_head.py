"""Model ``prior_head``: candidates looked up in a forecast, then the ONNX head.

As the last step of ``advertiser_ranking`` it takes a live forecast; called alone it ranks with one
that the caller has at hand.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from adprior_runtime import contract
from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, HEAD_FILE, Bundle
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.contract import CandidateStatus
from adprior_runtime.head.features import (
    candidate_priors,
    validate_head_request,
    validate_scores,
)
from adprior_runtime.head.head import PriorHead
from adprior_runtime.triton.backend import Answer, RequestModel, Tensors
from adprior_runtime.triton.metrics import ANSWERS, CANDIDATES, Exactness


class TritonPythonModel(RequestModel):
    """Adds the prior to the ranker's logits."""

    name = contract.PRIOR_HEAD

    def load(self, bundle: Bundle) -> None:
        """Load the head and map the advertisers."""
        self._head = PriorHead(bundle.path(HEAD_FILE))
        self._head.require_belongs(bundle.manifest)
        self._advertisers = Advertisers.load(bundle.path(ADVERTISERS_DIRECTORY))
        self._forecast_k = bundle.forecast_k
        self._bundle_id = bundle.bundle_id.encode()

    def answer(self, inputs: Tensors, is_cancelled: Callable[[], bool]) -> Answer:  # noqa: ARG002
        """Adjust one request's candidates."""
        forecast_ids = inputs[contract.ADVERTISER_IDS]
        forecast_log_probs = inputs[contract.LOG_PROBS]
        missing_mass = float(inputs[contract.MISSING_MASS][0])
        exact = bool(inputs.get(contract.EXACT, [False])[0])
        candidate_ids = inputs[contract.CANDIDATE_ADVERTISER_IDS]
        base_logits = inputs[contract.BASE_LOGITS]
        scored_log_probs = inputs.get(contract.SCORED_LOG_PROBS)
        scored_exact = inputs.get(contract.SCORED_EXACT)
        validate_scores(candidate_ids, scored_log_probs, scored_exact)
        validate_head_request(
            forecast_ids=forecast_ids,
            forecast_log_probs=forecast_log_probs,
            missing_mass=missing_mass,
            candidate_ids=candidate_ids,
            base_logits=base_logits,
        )
        priors = candidate_priors(
            forecast_ids=forecast_ids,
            forecast_log_probs=forecast_log_probs,
            missing_mass=missing_mass,
            forecast_exact=exact,
            forecast_k=self._forecast_k,
            candidate_ids=candidate_ids,
            advertisers=self._advertisers,
            scored_log_probs=scored_log_probs,
            scored_exact=scored_exact,
        )
        adjusted = self._head.adjust(base_logits, priors)
        self.metrics.record(priors.statuses, self._count)
        return {
            contract.ADJUSTED_LOGITS: adjusted.logits,
            contract.ADJUSTMENTS: adjusted.adjustments,
            contract.CANDIDATE_LOG_PROBS: priors.log_probs,
            contract.CANDIDATE_STATUS: priors.statuses,
            contract.PRIOR_FEATURES: priors.features,
            contract.ADJUSTMENT_LIMIT: [self._head.limit],
            contract.BUNDLE_ID: [self._bundle_id],
            contract.ANSWER_VERSION: [contract.CONTRACT_VERSION.encode()],
            contract.ADVERTISER_IDS: forecast_ids,
            contract.LOG_PROBS: forecast_log_probs,
            contract.EXACT: [exact],
            contract.MISSING_MASS: [missing_mass],
        }

    def _count(self, statuses: npt.NDArray[np.uint8]) -> None:
        numbers = np.bincount(statuses, minlength=len(CandidateStatus)).tolist()
        for status in CandidateStatus:
            self.metrics.count(CANDIDATES, numbers[status], status.name.lower())
        bounded = numbers[CandidateStatus.UPPER_BOUND] > 0
        self.metrics.count(ANSWERS, value=Exactness.BOUNDED if bounded else Exactness.EXACT)
