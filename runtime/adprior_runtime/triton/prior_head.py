"""Model ``prior_head``: candidates looked up in a forecast, then the ONNX head.

It is the last step of ``advertiser_ranking``, with a live forecast. A caller that already has a
forecast calls it alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from adprior_runtime import contract
from adprior_runtime.bundle import Bundle
from adprior_runtime.contract import CandidateStatus
from adprior_runtime.head.features import KnownForecast
from adprior_runtime.head.head_step import HeadStep
from adprior_runtime.triton.metrics import ANSWERS, CANDIDATES, Exactness
from adprior_runtime.triton.request_model import Answer, RequestModel, Tensors


class TritonPythonModel(RequestModel):
    """Adds the prior to the ranker's logits."""

    name = contract.PRIOR_HEAD

    def load(self, bundle: Bundle) -> None:
        """Load the head and map the advertisers."""
        self._step = HeadStep(bundle)
        self._bundle_id = bundle.manifest.bundle_id.encode()

    def answer(self, inputs: Tensors, is_cancelled: Callable[[], bool]) -> Answer:  # noqa: ARG002
        """Adjust one request's candidates."""
        forecast = KnownForecast(
            advertiser_ids=inputs[contract.ADVERTISER_IDS],
            log_probs=inputs[contract.LOG_PROBS],
            missing_mass=float(inputs[contract.MISSING_MASS][0]),
            exact=bool(inputs.get(contract.EXACT, [False])[0]),
        )
        adjusted, priors = self._step.run(
            forecast,
            inputs[contract.CANDIDATE_ADVERTISER_IDS],
            inputs[contract.BASE_LOGITS],
            inputs.get(contract.SCORED_LOG_PROBS),
            inputs.get(contract.SCORED_EXACT),
        )
        self.metrics.record(priors.statuses, self._count)
        return {
            contract.ADJUSTED_LOGITS: adjusted.logits,
            contract.ADJUSTMENTS: adjusted.adjustments,
            contract.CANDIDATE_LOG_PROBS: priors.log_probs,
            contract.CANDIDATE_STATUS: priors.statuses,
            contract.PRIOR_FEATURES: priors.features,
            contract.ADJUSTMENT_LIMIT: [self._step.head.limit],
            contract.BUNDLE_ID: [self._bundle_id],
            contract.ANSWER_VERSION: [contract.CONTRACT_VERSION.encode()],
            contract.ADVERTISER_IDS: forecast.advertiser_ids,
            contract.LOG_PROBS: forecast.log_probs,
            contract.EXACT: [forecast.exact],
            contract.MISSING_MASS: [forecast.missing_mass],
        }

    def _count(self, statuses: npt.NDArray[np.uint8]) -> None:
        numbers = np.bincount(statuses, minlength=len(CandidateStatus)).tolist()
        for status in CandidateStatus:
            self.metrics.count(CANDIDATES, numbers[status], status.name.lower())
        bounded = numbers[CandidateStatus.UPPER_BOUND] > 0
        self.metrics.count(ANSWERS, value=Exactness.BOUNDED if bounded else Exactness.EXACT)
