"""Model ``llm_engine`` of the embedded server: trie search on the ONNX engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adprior_runtime import contract
from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, ONNX_MODEL_FILE, TRIE_DIRECTORY, Bundle
from adprior_runtime.catalogue import Advertisers
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.errors import InvalidRequestError
from adprior_runtime.search import beam_search
from adprior_runtime.trie import Trie
from adprior_runtime.triton.backend import Answer, RequestModel, Tensors
from adprior_runtime.triton.requests import read_top_k

__all__ = ["TritonPythonModel"]

_PADDING = -1


class TritonPythonModel(RequestModel):
    """Answers with TensorRT-LLM's tensors, and with the frontier that it does not tell."""

    name = contract.LLM_ENGINE

    def load(self, bundle: Bundle) -> None:
        """Load the language model and map the trie."""
        self._engine = OnnxEngine(bundle.path(ONNX_MODEL_FILE))
        self._trie = Trie.load(bundle.path(TRIE_DIRECTORY))
        advertisers = Advertisers.load(bundle.path(ADVERTISERS_DIRECTORY))
        self._most_paths = int(advertisers.path_counts.max())
        self._forecast_k = bundle.forecast_k

    def answer(self, inputs: Tensors, is_cancelled: Callable[[], bool]) -> Answer:
        """Search the catalogue for one user."""
        length = int(inputs[contract.INPUT_LENGTHS][0])
        if not 1 <= length <= len(inputs[contract.INPUT_IDS]):
            raise InvalidRequestError(
                f"{contract.INPUT_LENGTHS}: found {length}, expected 1 to "
                f"{len(inputs[contract.INPUT_IDS])}, the length of {contract.INPUT_IDS}"
            )
        top_k = read_top_k(inputs, self._forecast_k)
        width = max(int(inputs[contract.BEAM_WIDTH][0]), top_k)
        # The decoder leaves the excluded out; room for as many more, so that enough remain.
        excluded = inputs.get(contract.EXCLUDED_ADVERTISER_IDS, ())
        beams = beam_search(
            self._engine,
            inputs[contract.INPUT_IDS][:length].tolist(),
            self._trie,
            width=width + min(len(excluded), width),
            is_cancelled=is_cancelled,
        )
        longest = max((len(path) for path in beams.paths), default=0)
        output_ids = np.full((len(beams.paths), longest), _PADDING, dtype=np.int32)
        for row, path in enumerate(beams.paths):
            output_ids[row, : len(path)] = path
        frontier = beams.frontier_log_probs
        with np.errstate(divide="ignore"):
            mass = np.log(np.exp(frontier).sum())
        return {
            contract.OUTPUT_IDS: output_ids,
            contract.SEQUENCE_LENGTH: np.array([len(path) for path in beams.paths], np.int32),
            contract.CUM_LOG_PROBS: beams.log_probs,
            # The certificate needs the few largest only, and the sum of all.
            contract.FRONTIER_LOG_PROBS: frontier[: self._most_paths],
            contract.FRONTIER_LOG_MASS: [mass],
        }
