"""Model ``advertiser_decoder``: token beams to advertisers with probabilities and certificate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adprior_runtime import contract
from adprior_runtime.bundle import Bundle
from adprior_runtime.forecast.beams import Beams
from adprior_runtime.forecast.decode_step import DecodedForecast, DecodeStep
from adprior_runtime.forecast.drift import PopularityBins, PopularityDrift
from adprior_runtime.forecast.interests import InterestCatalogue, Interests
from adprior_runtime.search.limits import SearchLimits
from adprior_runtime.triton.metrics import (
    ANSWERS,
    BEAMS,
    DROPPED_BEAMS,
    FORECAST_DRIFT,
    FORECAST_SHARE,
    MISSING_MASS,
    Exactness,
)
from adprior_runtime.triton.request_model import Answer, RequestModel, Tensors, read_scalar

_NOBODY = np.zeros(0, dtype=np.int64)


class TritonPythonModel(RequestModel):
    """Decodes the beams of either engine, and counts those that name no advertiser.

    Beams come from the engine, not from the caller: impossible beams are an INTERNAL error.
    """

    name = contract.ADVERTISER_DECODER

    def load(self, bundle: Bundle) -> None:
        """Map trie and advertisers."""
        self._step = DecodeStep.load(bundle)
        self._interests = InterestCatalogue.load(bundle)
        self._manifest = bundle.manifest
        self._limits = SearchLimits.of(bundle.manifest, len(self._step.trie.leaf_nodes))
        self._bins = PopularityBins(self._step.advertisers.log_popularity)
        self._drift = PopularityDrift(self._bins.shares)
        self.metrics.follow(FORECAST_DRIFT, self._drift.index)

    def answer(self, inputs: Tensors, is_cancelled: Callable[[], bool]) -> Answer:  # noqa: ARG002
        """Decode one user's beams."""
        mass = inputs.get(contract.FRONTIER_LOG_MASS)
        beams = Beams(
            output_ids=inputs[contract.OUTPUT_IDS],
            lengths=inputs[contract.SEQUENCE_LENGTH],
            log_probs=inputs[contract.CUM_LOG_PROBS],
            proved_top_k=read_scalar(inputs, contract.PROVED_TOP_K) or 0,
            frontier_log_mass=None if mass is None else float(mass[0]),
        )
        forecast = self._step.run(
            beams,
            top_k=self._limits.top_k(read_scalar(inputs, contract.TOP_K)),
            excluded_ids=inputs.get(contract.EXCLUDED_ADVERTISER_IDS, _NOBODY),
        )
        interests = self._decode_interests(inputs)
        self.metrics.count(BEAMS, len(beams.lengths))
        self.metrics.record(forecast, self._count)
        return {
            contract.ADVERTISER_IDS: forecast.advertiser_ids,
            contract.LOG_PROBS: forecast.log_probs,
            contract.ADVERTISER_NAMES: forecast.names,
            contract.INTEREST_IDS: interests.ids,
            contract.INTEREST_LOG_PROBS: interests.log_probs,
            contract.INTEREST_NAMES: interests.names,
            contract.EXACT: [forecast.exact],
            contract.MISSING_MASS: [forecast.missing_mass],
            contract.BUNDLE_ID: [self._manifest.bundle_id.encode()],
            contract.ANSWER_VERSION: [contract.CONTRACT_VERSION.encode()],
        }

    def _decode_interests(self, inputs: Tensors) -> Interests:
        """Decode the interests, which TensorRT-LLM does not give."""
        if self._interests is None or contract.INTEREST_OUTPUT_IDS not in inputs:
            return Interests.none()
        top_k = self._interests.top_k(read_scalar(inputs, contract.INTEREST_TOP_K))
        beams = Beams(
            output_ids=inputs[contract.INTEREST_OUTPUT_IDS],
            lengths=inputs[contract.INTEREST_SEQUENCE_LENGTH],
            log_probs=inputs[contract.INTEREST_CUM_LOG_PROBS],
        )
        return self._interests.decode(beams, top_k) if top_k else Interests.none()

    def _count(self, forecast: DecodedForecast) -> None:
        for reason, number in forecast.dropped.items():
            self.metrics.count(DROPPED_BEAMS, number, reason)
        self.metrics.count(ANSWERS, value=Exactness.EXACT if forecast.exact else Exactness.BOUNDED)
        self.metrics.observe(MISSING_MASS, forecast.missing_mass)
        # Only the default number of advertisers counts: a request for more is no drift.
        head = slice(self._manifest.forecast_k)
        rows = self._step.advertisers.rows_of(forecast.advertiser_ids[head])
        shares = self._bins.split(rows, forecast.log_probs[head])
        self._drift.add(shares)
        for decile, share in enumerate(shares.tolist(), start=1):
            self.metrics.count(FORECAST_SHARE, share, str(decile))
