"""Model ``llm_engine`` of the embedded server: trie search on the ONNX engine."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from adprior_runtime import contract
from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, ONNX_MODEL_FILE, TRIE_DIRECTORY, Bundle
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.engines.processors import threads_of_each
from adprior_runtime.errors import InvalidRequestError
from adprior_runtime.search.rounding import require_error
from adprior_runtime.search.search import SearchSettings, TrieSearch
from adprior_runtime.triton.backend import Answer, RequestModel, Tensors
from adprior_runtime.triton.metrics import EXTENDED_TOKENS, ExtensionPurpose
from adprior_runtime.triton.requests import most_top_k, read_beam_width, read_top_k

_NONE = np.zeros(0, dtype=np.int64)


class TritonPythonModel(RequestModel):
    """Answers with TensorRT-LLM's tensors, and with the frontier that it does not tell."""

    name = contract.LLM_ENGINE

    def load(self, bundle: Bundle) -> None:
        """Load the language model and map the trie."""
        self._engine = OnnxEngine(
            bundle.path(ONNX_MODEL_FILE),
            threads=threads_of_each(
                self.instances, int(self.parameters.get(contract.THREADS_PARAMETER, "0"))
            ),
            head_ids=bundle.manifest.prompt_head_ids,
            device=os.environ.get(contract.DEVICE_VARIABLE, "cpu"),
        )
        require_error(bundle.manifest, is_half=self._engine.is_half)
        self._trie = Trie.load(bundle.path(TRIE_DIRECTORY))
        self._advertisers = Advertisers.load(bundle.path(ADVERTISERS_DIRECTORY))
        self._settings = SearchSettings.of(bundle.manifest)
        self._forecast_k = bundle.forecast_k
        self._most_top_k = most_top_k(bundle.manifest, len(self._trie.leaf_nodes))

    def answer(self, inputs: Tensors, is_cancelled: Callable[[], bool]) -> Answer:
        """Search the catalogue for one user."""
        length = int(inputs[contract.INPUT_LENGTHS][0])
        if not 1 <= length <= len(inputs[contract.INPUT_IDS]):
            raise InvalidRequestError(
                f"{contract.INPUT_LENGTHS}: found {length}, expected 1 to "
                f"{len(inputs[contract.INPUT_IDS])}, the length of {contract.INPUT_IDS}"
            )
        top_k = read_top_k(inputs, self._forecast_k, self._most_top_k)
        excluded = self._advertisers.rows_of(inputs.get(contract.EXCLUDED_ADVERTISER_IDS, _NONE))
        widest = max(self._most_top_k, self._settings.width)
        settings = self._settings.for_top_k(top_k, read_beam_width(inputs, widest))
        search = TrieSearch(
            self._engine,
            self._trie,
            inputs[contract.INPUT_IDS][:length].tolist(),
            settings,
            excluded_rows=excluded[excluded >= 0],
            is_cancelled=is_cancelled,
        )
        result = search.run(top_k)
        self.metrics.count(EXTENDED_TOKENS, result.extended_tokens, ExtensionPurpose.SEARCH)
        output_ids, lengths = self._trie.paths(result.leaves)
        answer: dict[str, npt.ArrayLike] = {
            contract.OUTPUT_IDS: output_ids,
            contract.SEQUENCE_LENGTH: lengths,
            contract.CUM_LOG_PROBS: result.log_probs,
            contract.FRONTIER_LOG_PROBS: result.frontier_log_probs,
            contract.FRONTIER_LOG_MASS: [result.frontier_log_mass],
        }
        if contract.CANDIDATE_ADVERTISER_IDS in inputs:
            candidate_ids = inputs[contract.CANDIDATE_ADVERTISER_IDS]
            scores = search.score_ids(self._advertisers, candidate_ids)
            extended = scores.extended_tokens
            self.metrics.count(EXTENDED_TOKENS, extended, ExtensionPurpose.CANDIDATES)
            answer[contract.SCORED_LOG_PROBS] = scores.log_probs
            answer[contract.SCORED_EXACT] = scores.exact
        return answer
