"""Model ``advertiser_decoder``: token beams to advertisers with probabilities and certificate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from adprior_runtime import contract
from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, TRIE_DIRECTORY, Bundle
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.errors import ModelOutputError
from adprior_runtime.forecast.beams import beams_to_paths, complete_path
from adprior_runtime.forecast.decoder import AdvertiserDecoder, DecodedForecast
from adprior_runtime.forecast.drift import PopularityBins, PopularityDrift
from adprior_runtime.search.rounding import margin_nats
from adprior_runtime.triton.backend import Answer, RequestModel, Tensors
from adprior_runtime.triton.metrics import (
    ANSWERS,
    BEAMS,
    DROPPED_BEAMS,
    FORECAST_DRIFT,
    FORECAST_SHARE,
    MISSING_MASS,
    Exactness,
)
from adprior_runtime.triton.requests import most_top_k, read_top_k

_ROUNDING = 1e-4
"""A sum of FP32 log-probabilities may step this far above 0."""
_MASS_ROUNDING = 1e-2
"""So may the log of many probabilities' sum."""


class TritonPythonModel(RequestModel):
    """Takes the beams of either engine, and counts those that name no advertiser.

    The engine gives beams and frontier, whoever sent the request: where they make no sense, the
    answer is INTERNAL, and the caller is not to blame.
    """

    name = contract.ADVERTISER_DECODER

    def load(self, bundle: Bundle) -> None:
        """Map trie and advertisers."""
        self._trie = Trie.load(bundle.path(TRIE_DIRECTORY))
        self._advertisers = Advertisers.load(bundle.path(ADVERTISERS_DIRECTORY))
        self._decoder = AdvertiserDecoder(
            self._trie, self._advertisers, margin_nats=margin_nats(bundle.manifest)
        )
        self._manifest = bundle.manifest
        self._most_top_k = most_top_k(bundle.manifest, len(self._trie.leaf_nodes))
        self._bins = PopularityBins(self._advertisers.log_popularity)
        self._drift = PopularityDrift(self._bins.shares)
        self.metrics.follow(FORECAST_DRIFT, self._drift.index)

    def answer(self, inputs: Tensors, is_cancelled: Callable[[], bool]) -> Answer:  # noqa: ARG002
        """Decode one user's beams."""
        mass = inputs.get(contract.FRONTIER_LOG_MASS)
        lengths, log_probs = inputs[contract.SEQUENCE_LENGTH], inputs[contract.CUM_LOG_PROBS]
        if log_probs.shape != lengths.shape or not (log_probs <= _ROUNDING).all():
            raise ModelOutputError(
                f"{contract.CUM_LOG_PROBS}: expected {len(lengths)} log-probabilities, "
                f"one for each of {contract.SEQUENCE_LENGTH}"
            )
        for name, most in (
            (contract.FRONTIER_LOG_PROBS, _ROUNDING),
            (contract.FRONTIER_LOG_MASS, _MASS_ROUNDING),
        ):
            _refuse_impossible(name, inputs.get(name), most)
        paths = [
            complete_path(
                path,
                terminator=self._trie.terminator,
                output_length=self._manifest.longest_name_tokens,
            )
            for path in beams_to_paths(inputs[contract.OUTPUT_IDS], lengths)
        ]
        forecast = self._decoder.decode(
            paths,
            log_probs,
            top_k=read_top_k(inputs, self._manifest.forecast_k, self._most_top_k),
            frontier_log_probs=inputs.get(contract.FRONTIER_LOG_PROBS),
            frontier_log_mass=None if mass is None else float(mass[0]),
            excluded_ids=inputs.get(contract.EXCLUDED_ADVERTISER_IDS),
        )
        self.metrics.count(BEAMS, len(paths))
        self.metrics.record(forecast, self._count)
        return {
            contract.ADVERTISER_IDS: forecast.advertiser_ids,
            contract.LOG_PROBS: forecast.log_probs,
            contract.ADVERTISER_NAMES: forecast.names,
            contract.EXACT: [forecast.exact],
            contract.MISSING_MASS: [forecast.missing_mass],
            contract.BUNDLE_ID: [self._manifest.bundle_id.encode()],
            contract.ANSWER_VERSION: [contract.CONTRACT_VERSION.encode()],
        }

    def _count(self, forecast: DecodedForecast) -> None:
        for reason, number in forecast.dropped.items():
            self.metrics.count(DROPPED_BEAMS, number, reason)
        self.metrics.count(ANSWERS, value=Exactness.EXACT if forecast.exact else Exactness.BOUNDED)
        self.metrics.observe(MISSING_MASS, forecast.missing_mass)
        # No more than a forecast holds by default: who asks for more is no drift.
        head = slice(self._manifest.forecast_k)
        rows = self._advertisers.rows_of(forecast.advertiser_ids[head])
        shares = self._bins.split(rows, forecast.log_probs[head])
        self._drift.add(shares)
        for decile, share in enumerate(shares.tolist(), start=1):
            self.metrics.count(FORECAST_SHARE, share, str(decile))


def _refuse_impossible(name: str, values: npt.NDArray[np.float32] | None, most: float) -> None:
    """Refuse NaN and more than certainty, beside which no bound means anything; -inf is valid."""
    if values is not None and not (values <= most).all():
        worst = values[~(values <= most)][0]
        raise ModelOutputError(f"{name}: found {worst:.6g}, expected log-probabilities")
