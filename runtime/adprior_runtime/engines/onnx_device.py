"""Forward passes of ONNX Runtime on a GPU.

The KV cache stays on the GPU: passes are bound to its memory, and a graph of one node joins the
cache's pieces. Only log-probabilities are copied back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from adprior_runtime.engines.base import LogProbs
from adprior_runtime.engines.kv_cache import LAYOUT, POSITIONS_AXIS, KvCache
from adprior_runtime.engines.onnx_graph import (
    OUTPUT_NAMES,
    PAST_KEYS,
    PAST_VALUES,
    graph_inputs,
)
from adprior_runtime.engines.packed_tree import UserPass


class DevicePasses:
    """Forward passes with the KV cache in the device's memory.

    Args:
        session: The model, on the device.
        device: ONNX Runtime's name of the device, ``cuda``.
        provider: ONNX Runtime's execution provider for the device.
        empty_cache: Keys, or values, of no position.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        device: str,
        provider: str,
        empty_cache: npt.NDArray[Any],
    ) -> None:
        self._session, self._device, self._empty_cache = session, device, empty_cache
        self._join = _join_session(provider)

    def empty_cache(self) -> KvCache:
        """See `Passes.empty_cache`."""
        return KvCache()

    def run(self, part: UserPass) -> LogProbs:
        """See `Passes.run`."""
        cache = part.cache
        binding = self._session.io_binding()
        for name, values in graph_inputs(part.tree_pass).items():
            binding.bind_cpu_input(name, np.ascontiguousarray(values))
        for name, pieces in ((PAST_KEYS, cache.keys), (PAST_VALUES, cache.values)):
            if pieces:
                binding.bind_ortvalue_input(name, self._joined(pieces))
            else:
                binding.bind_cpu_input(name, self._empty_cache)
        log_probs_name, *cache_names = OUTPUT_NAMES
        binding.bind_output(log_probs_name, "cpu")
        for name in cache_names:
            binding.bind_output(name, self._device)
        self._session.run_with_iobinding(binding)
        log_probs, keys, values = binding.get_outputs()
        if part.keep:
            cache.add(keys, values)
        found: LogProbs = log_probs.numpy()
        return found

    def _joined(self, pieces: list[Any]) -> Any:
        while len(pieces) > 1:
            binding = self._join.io_binding()
            binding.bind_ortvalue_input("first", pieces[0])
            binding.bind_ortvalue_input("second", pieces[1])
            binding.bind_output("joined", self._device)
            self._join.run_with_iobinding(binding)
            pieces[:2] = binding.get_outputs()
        return pieces[0]


def _join_session(provider: str) -> onnxruntime.InferenceSession:
    """Return a graph that concatenates two pieces of a cache."""
    from onnx import TensorProto, helper  # noqa: PLC0415  only a device needs it

    ranks = {name: [None] * len(LAYOUT) for name in ("first", "second", "joined")}
    described = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, rank)
        for name, rank in ranks.items()
    }
    node = helper.make_node("Concat", ["first", "second"], ["joined"], axis=POSITIONS_AXIS)
    inputs = [described["first"], described["second"]]
    graph = helper.make_graph([node], "join", inputs, [described["joined"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the node runs on the device
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[provider])
