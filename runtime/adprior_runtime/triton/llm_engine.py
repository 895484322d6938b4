"""Model ``llm_engine`` of the exact search: trie search on the bundle's engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from adprior_runtime import contract
from adprior_runtime.bundle import Bundle
from adprior_runtime.cpu_count import threads_of_each
from adprior_runtime.engines.registry import ENGINES
from adprior_runtime.errors import InvalidRequestError
from adprior_runtime.forecast.search_step import SearchStep
from adprior_runtime.triton.metrics import EXTENDED_TOKENS, SEARCH_TIME, ExtensionPurpose
from adprior_runtime.triton.request_model import Answer, RequestModel, Tensors, read_scalar

_NOBODY = np.zeros(0, dtype=np.int64)
_WARM_UP_USERS = (1, 8, 64) * 3
_NO_INTERESTS = {
    contract.INTEREST_OUTPUT_IDS: np.zeros((0, 0)),
    contract.INTEREST_SEQUENCE_LENGTH: np.zeros(0),
    contract.INTEREST_CUM_LOG_PROBS: np.zeros(0),
}
"""Answered without interests: an ensemble fails if a step leaves out an output."""


class TritonPythonModel(RequestModel):
    """Returns TensorRT-LLM's tensors, the proof, and the probability of names not returned."""

    name = contract.LLM_ENGINE
    times = SEARCH_TIME

    def load(self, bundle: Bundle) -> None:
        """Load the language model, map the trie, and search once before the model is ready."""
        threads = int(self.parameters.get(contract.THREADS_PARAMETER, "0"))
        device = self.parameters.get(contract.DEVICE_PARAMETER, "cpu")
        self._step = SearchStep(
            bundle, threads=threads_of_each(self.instances, threads), device=device
        )
        self._step.warm_up()
        if ENGINES[bundle.manifest.engine].joins_users:
            # Both need greenlet, which an installation for ONNX Runtime may lack.
            from adprior_runtime.engines.pass_loop import PassLoop  # noqa: PLC0415
            from adprior_runtime.triton.search_thread import SearchThread  # noqa: PLC0415

            # On a GPU, passes of usual sizes are recorded when they have come a few times.
            for users in _WARM_UP_USERS if device != "cpu" else ():
                PassLoop().run([self._step.warm_up] * users)
            self.searches = SearchThread()

    def answer(self, inputs: Tensors, is_cancelled: Callable[[], bool]) -> Answer:
        """Search the catalogue for one user."""
        length = int(inputs[contract.INPUT_LENGTHS][0])
        if not 1 <= length <= len(inputs[contract.INPUT_IDS]):
            raise InvalidRequestError(
                f"{contract.INPUT_LENGTHS}: found {length}, expected 1 to "
                f"{len(inputs[contract.INPUT_IDS])}, the length of {contract.INPUT_IDS}"
            )
        limits, interests = self._step.limits, self._step.interests
        asked = read_scalar(inputs, contract.INTEREST_TOP_K)
        interest_top_k = 0 if interests is None else interests.top_k(asked)
        searched = self._step.run(
            inputs[contract.INPUT_IDS][:length].tolist(),
            top_k=limits.top_k(read_scalar(inputs, contract.TOP_K)),
            beam_width=limits.beam_width(int(inputs[contract.BEAM_WIDTH][0])),
            excluded_ids=inputs.get(contract.EXCLUDED_ADVERTISER_IDS, _NOBODY),
            is_cancelled=is_cancelled,
        )
        self.metrics.count(EXTENDED_TOKENS, searched.extended_tokens, ExtensionPurpose.SEARCH)
        beams = searched.beams
        answer: dict[str, Any] = {
            contract.OUTPUT_IDS: beams.output_ids,
            contract.SEQUENCE_LENGTH: beams.lengths,
            contract.CUM_LOG_PROBS: beams.log_probs,
            contract.PROVED_TOP_K: [beams.proved_top_k],
            contract.FRONTIER_LOG_MASS: [beams.frontier_log_mass],
            **_NO_INTERESTS,
        }
        if contract.CANDIDATE_ADVERTISER_IDS in inputs:
            scores = searched.score(inputs[contract.CANDIDATE_ADVERTISER_IDS])
            extended = scores.extended_tokens
            self.metrics.count(EXTENDED_TOKENS, extended, ExtensionPurpose.CANDIDATES)
            answer[contract.SCORED_LOG_PROBS] = scores.log_probs
            answer[contract.SCORED_EXACT] = scores.exact
        if interests is not None and interest_top_k:  # after the candidates: it ends the search
            found = interests.search(searched.search, interest_top_k)
            tokens = found.extended_tokens
            self.metrics.count(EXTENDED_TOKENS, tokens, ExtensionPurpose.INTERESTS)
            answer[contract.INTEREST_OUTPUT_IDS] = found.beams.output_ids
            answer[contract.INTEREST_SEQUENCE_LENGTH] = found.beams.lengths
            answer[contract.INTEREST_CUM_LOG_PROBS] = found.beams.log_probs
        return answer
