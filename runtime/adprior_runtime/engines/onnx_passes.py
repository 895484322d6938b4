"""Forward passes of ONNX Runtime, whose values are handed from pass to pass."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnxruntime

from adprior_runtime.engines.base import LogProbs
from adprior_runtime.engines.kv_cache import KvCache
from adprior_runtime.engines.onnx_graph import (
    LAYERS,
    LOG_PROBS,
    cache_tensors,
    graph_inputs,
    past_tensors,
)
from adprior_runtime.engines.packed_tree import UserPass

_HOST: Final = "cpu"


class OnnxPasses:
    """Runs forward passes of one graph.

    Args:
        session: The model; `adprior_runtime.engines.onnx_graph.check_graph` has checked it.
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        layers = int(session.get_modelmeta().custom_metadata_map[LAYERS])
        self._past_names = [tensor.name for tensor in past_tensors(layers)]
        self._cache_names = [tensor.name for tensor in cache_tensors(layers)]
        past = next(each for each in session.get_inputs() if each.name == self._past_names[0])
        _, heads, _, head_size = past.shape
        nothing = np.zeros((1, heads, 0, head_size), dtype=np.float32)
        self._nothing = onnxruntime.OrtValue.ortvalue_from_numpy(nothing)

    def empty_cache(self) -> KvCache:
        """See `Passes.empty_cache`."""
        return KvCache([self._nothing] * len(self._past_names))

    def run(self, part: UserPass) -> LogProbs:
        """See `Passes.run`."""
        binding = self._session.io_binding()
        for name, values in graph_inputs(part.tree_pass).items():
            binding.bind_cpu_input(name, np.ascontiguousarray(values))
        for name, tensor in zip(self._past_names, part.cache.tensors, strict=True):
            binding.bind_ortvalue_input(name, tensor)
        binding.bind_output(LOG_PROBS, _HOST)
        for name in self._cache_names if part.keep else ():
            binding.bind_output(name, _HOST)
        self._session.run_with_iobinding(binding)
        log_probs, *tensors = binding.get_outputs()
        if part.keep:
            part.cache.tensors = tensors
        found: LogProbs = log_probs.numpy()
        return found
