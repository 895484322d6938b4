"""The embedded engine: ONNX Runtime on the CPU, with packed tree attention.

All live prefixes of a user are positions of one sequence. A 4-D mask lets each see the prompt and
its own ancestors only; its position id is the prompt's length plus its depth. So the prompt's keys
and values are written once and never re-ordered, whatever the beams do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from adprior_runtime.engines.base import Engine, LogProbs
from adprior_runtime.errors import ArtefactError, InvalidRequestError

__all__ = ["OnnxEngine", "OnnxState", "causal_mask"]

_Float32Array = npt.NDArray[np.float32]
_MASKED = np.finfo(np.float32).min


@dataclass(slots=True)
class OnnxState:
    """One user's cache.

    Attributes:
        prompt_length: Tokens of the prompt.
        keys, values: float32 [layers, 1, key-value heads, positions, head size].
        lineage: For each node, the cache positions of itself and its ancestors.
    """

    prompt_length: int
    keys: _Float32Array
    values: _Float32Array
    lineage: list[list[int]] = field(default_factory=list)


class OnnxEngine(Engine[OnnxState]):
    """Runs ``model.onnx`` as `adprior_build.onnx_export` writes it."""

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        """Load the model.

        Args:
            path: The ONNX file.
            threads: Threads of one forward pass; 0 lets ONNX Runtime choose.

        Raises:
            ArtefactError: The file is not such a model.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # below, it may quote token ids of a prompt
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            shape = next(i.shape for i in self._session.get_inputs() if i.name == "past_keys")
            self._empty_cache = np.zeros((shape[0], 1, shape[2], 0, shape[4]), dtype=np.float32)
            self._vocabulary = int(self._session.get_outputs()[0].shape[-1])
            self._max_positions = int(
                self._session.get_modelmeta().custom_metadata_map["max_positions"]
            )
        except Exception as error:  # ONNX Runtime's errors share no public base
            raise ArtefactError(f"{path}: not a language model in ONNX: {error}") from error

    def prefill(self, prompt_ids: Sequence[int]) -> tuple[OnnxState, LogProbs]:
        """See `Engine.prefill`; impossible tokens, or more than the model takes, are refused."""
        length = len(prompt_ids)
        if not 0 < length < self._max_positions:
            raise InvalidRequestError(
                f"input_ids: {length} tokens, the model takes 1 to {self._max_positions - 1}"
            )
        if min(prompt_ids) < 0 or max(prompt_ids) >= self._vocabulary:
            raise InvalidRequestError(
                f"input_ids: found {min(prompt_ids)} to {max(prompt_ids)}, "
                f"the model knows 0 to {self._vocabulary - 1}"
            )
        state = OnnxState(length, self._empty_cache, self._empty_cache)
        log_probs = self._run(
            state, prompt_ids, np.arange(length), causal_mask(length), np.array([length - 1])
        )
        return state, log_probs[0]

    def extend(
        self, state: OnnxState, token_ids: Sequence[int], parents: Sequence[int]
    ) -> tuple[Sequence[int], LogProbs]:
        """See `Engine.extend`."""
        count, cached = len(token_ids), state.keys.shape[3]
        mask = np.full((count, cached + count), _MASKED, dtype=np.float32)
        mask[:, : state.prompt_length] = 0
        positions = np.empty(count, dtype=np.int64)
        nodes = range(len(state.lineage), len(state.lineage) + count)
        for row, parent in enumerate(parents):
            ancestors = [] if parent == self.ROOT else state.lineage[parent]
            state.lineage.append([*ancestors, cached + row])
            mask[row, state.lineage[-1]] = 0
            positions[row] = state.prompt_length + len(ancestors)
        return nodes, self._run(state, token_ids, positions, mask, np.arange(count))

    def _run(
        self,
        state: OnnxState,
        token_ids: Sequence[int],
        positions: npt.NDArray[np.int64],
        mask: _Float32Array,
        wanted: npt.NDArray[np.int64],
    ) -> LogProbs:
        """One forward pass; appends to the cache, returns log-probabilities where wanted."""
        log_probs, keys, values = self._session.run(
            ["log_probs", "new_keys", "new_values"],
            {
                "input_ids": np.asarray(token_ids, dtype=np.int64)[None],
                "position_ids": positions[None],
                "attention_mask": mask[None, None],
                "wanted_positions": wanted,
                "past_keys": state.keys,
                "past_values": state.values,
            },
        )
        state.keys = np.concatenate([state.keys, keys], axis=3)
        state.values = np.concatenate([state.values, values], axis=3)
        found: LogProbs = log_probs[0]
        return found


def causal_mask(length: int) -> _Float32Array:
    """Return the additive mask of a plain sequence: float32 [length, length]."""
    return np.triu(np.full((length, length), _MASKED, dtype=np.float32), k=1)
