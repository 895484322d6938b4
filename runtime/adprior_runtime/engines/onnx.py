"""The embedded engine: ONNX Runtime, with packed tree attention.

All live prefixes of a user are positions of one sequence. A 4-D mask lets each position see only
the prompt and its own ancestors (`adprior_runtime.engines.tree_mask`). Its position id is the
prompt's length plus its depth. So the KV cache of the prompt is written once and never re-ordered
(`adprior_runtime.engines.kv_cache`).

Only the log-probabilities that are asked for leave the graph, and it computes logits for a part of
the vocabulary at a time. `PASS_CELLS` limits a pass in bytes, for any size of the tree. ONNX
Runtime's arena keeps the memory of the largest pass for later passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import onnxruntime

from adprior_runtime.bundle import ONNX_MODEL_FILE, Bundle
from adprior_runtime.cpu_count import threads_of_each
from adprior_runtime.engines.base import PASS_TOKENS, Engine, LogProbs
from adprior_runtime.engines.kv_cache import KvCache, empty_piece, join_pieces
from adprior_runtime.engines.onnx_device import DevicePasses
from adprior_runtime.engines.onnx_graph import (
    ATTENTION_MASK,
    INPUT_IDS,
    KEY_POSITIONS,
    MAX_POSITIONS,
    OUTPUT_NAMES,
    PAIR_ROWS,
    PAIR_TOKENS,
    PAST_KEYS,
    PAST_VALUES,
    POSITION_IDS,
    VOCABULARY,
    WANTED_POSITIONS,
    check_graph,
)
from adprior_runtime.engines.tree_mask import causal_mask, node_depths, tree_mask
from adprior_runtime.errors import ArtefactError, EnvironmentProblemError, InvalidRequestError

_Float32Array = npt.NDArray[np.float32]
_Int64Array = npt.NDArray[np.int64]
PASS_CELLS: Final = 2 * 2**20
"""Limit on a pass's mask: tokens times positions. Each attention head computes as many numbers, 8
MiB in single precision."""

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# TF32, a GPU's default, rounds factors to 11 bits: 8,192 times what the certificate allows.
_PROVIDER_OPTIONS: Mapping[str, dict[str, str]] = {"cuda": {"use_tf32": "0"}}


@dataclass(slots=True)
class OnnxState:
    """One user's cache and tree.

    Attributes:
        prompt_length: Tokens of the prompt.
        cache: Keys and values of prompt and tree.
        parents: int64 [nodes], the node that each node continues.
        depths: int64 [nodes], 0 for a child of the root.
    """

    prompt_length: int
    cache: KvCache
    parents: _Int64Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    depths: _Int64Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


class OnnxEngine(Engine[OnnxState]):
    """Runs a graph of the contract in `adprior_runtime.engines.onnx_graph`.

    Attributes:
        vocabulary: Number of tokens that the model knows.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 0,
        head_ids: Sequence[int] = (),
        device: str = "cpu",
    ) -> None:
        """Load the model.

        Args:
            path: The ONNX file.
            threads: Threads of one forward pass; 0 takes the processors this process may use.
            head_ids: Tokens that all prompts begin with; the model reads them once, here.
            device: ``cpu``, or ``cuda`` if onnxruntime-gpu is installed.

        Raises:
            ArtefactError: The file does not contain such a graph.
            EnvironmentProblemError: ONNX Runtime does not support the device here, or does not
                use it.
        """
        provider = _PROVIDERS.get(device, device)
        if provider not in onnxruntime.get_available_providers():
            raise EnvironmentProblemError(
                f"device {device}: this onnxruntime has no {provider}; "
                "install onnxruntime-gpu in its place, or use --device cpu"
            )
        options = onnxruntime.SessionOptions()
        # Never 0: ONNX Runtime would start a thread for each core of the machine.
        options.intra_op_num_threads = threads_of_each(1, threads)
        # Idle threads would spin between passes, on CPUs that the search and other processes need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # a lower level may quote token ids of a prompt
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=[(provider, _PROVIDER_OPTIONS.get(device, {}))]
            )
            _require_provider(session, device, provider)
            check_graph(session)
            metadata = session.get_modelmeta().custom_metadata_map
            self.vocabulary = int(metadata[VOCABULARY])
            self._max_positions = int(metadata[MAX_POSITIONS])
            past = next(item for item in session.get_inputs() if item.name == PAST_KEYS)
            empty_cache = empty_piece(past)
            self._passes = (
                _HostPasses(session, empty_cache)
                if device == "cpu"
                else DevicePasses(session, device, provider, empty_cache)
            )
        except EnvironmentProblemError:
            raise
        except Exception as error:  # ONNX Runtime's errors share no public base
            raise ArtefactError(f"{path}: not a language model in ONNX: {error}") from error
        self._head_ids: list[int] = []
        self._head = KvCache()
        if head_ids:
            head, _ = self.prefill(list(head_ids), [])
            self._head, self._head_ids = head.cache, list(head_ids)

    @classmethod
    def of_bundle(cls, bundle: Bundle, *, threads: int = 0, device: str = "cpu") -> Self:
        """Load a bundle's model.

        Raises:
            ArtefactError, EnvironmentProblemError: As the constructor.
        """
        head_ids = bundle.manifest.prompt_head_ids
        path = bundle.path(ONNX_MODEL_FILE)
        return cls(path, threads=threads, head_ids=head_ids, device=device)

    def prefill(
        self, prompt_ids: Sequence[int], next_tokens: npt.ArrayLike
    ) -> tuple[OnnxState, LogProbs]:
        """See `Engine.prefill`.

        Raises:
            InvalidRequestError: A token is not in the vocabulary, or there are too many tokens.
        """
        length, head = len(prompt_ids), len(self._head_ids)
        if not 0 < length < self._max_positions:
            raise InvalidRequestError(
                f"{INPUT_IDS}: {length} tokens, the model takes 1 to {self._max_positions - 1}"
            )
        if min(prompt_ids) < 0 or max(prompt_ids) >= self.vocabulary:
            raise InvalidRequestError(
                f"{INPUT_IDS}: found {min(prompt_ids)} to {max(prompt_ids)}, "
                f"the model knows 0 to {self.vocabulary - 1}"
            )
        if length <= head or list(prompt_ids[:head]) != self._head_ids:
            head = 0
        state = OnnxState(length, self._head.fork() if head else KvCache())
        wanted = np.asarray(next_tokens, dtype=np.int64)
        log_probs = self._run(
            state,
            np.asarray(prompt_ids[head:], dtype=np.int64),
            np.arange(length),
            causal_mask(length, head),
            np.full(len(wanted), length - head - 1),
            wanted,
        )
        return state, log_probs

    def extend(
        self,
        state: OnnxState,
        token_ids: npt.ArrayLike,
        parents: npt.ArrayLike,
        rows: npt.ArrayLike,
        next_tokens: npt.ArrayLike,
        *,
        keep: bool = True,
    ) -> LogProbs:
        """See `Engine.extend`."""
        tokens, above = np.asarray(token_ids, dtype=np.int64), np.asarray(parents, dtype=np.int64)
        lineage = np.concatenate([state.parents, above])
        depths = np.concatenate([state.depths, node_depths(state.depths, above)])
        log_probs = self._run(
            state,
            tokens,
            np.concatenate([np.arange(state.prompt_length), state.prompt_length + depths]),
            tree_mask(state.prompt_length, lineage, len(tokens)),
            np.asarray(rows, dtype=np.int64),
            np.asarray(next_tokens, dtype=np.int64),
            keep=keep,
        )
        if keep:
            state.parents, state.depths = lineage, depths
        return log_probs

    def most_tokens(self, state: OnnxState) -> int:
        """See `Engine.most_tokens`."""
        positions = state.prompt_length + len(state.depths) + PASS_TOKENS
        return max(min(PASS_TOKENS, PASS_CELLS // positions), 1)

    def _run(
        self,
        state: OnnxState,
        token_ids: _Int64Array,
        positions: _Int64Array,
        mask: _Float32Array,
        rows: _Int64Array,
        next_tokens: _Int64Array,
        *,
        keep: bool = True,
    ) -> LogProbs:
        """Run one forward pass; return the log-probability of each next token after its row.

        Args:
            state: The user's; its cache grows if ``keep``.
            token_ids: int64 [new].
            positions: int64 [past + new], of all tokens that the new ones may see.
            mask: [new, past + new].
            rows: int64 [pairs], positions in ``token_ids``.
            next_tokens: int64 [pairs].
            keep: Whether to keep the new positions' keys and values.
        """
        # A pass that asks for nothing asks for one log-probability that nobody reads.
        asked = rows if len(rows) else np.zeros(1, dtype=np.int64)
        wanted, places = np.unique(asked, return_inverse=True)
        inputs: dict[str, npt.NDArray[Any]] = {
            INPUT_IDS: token_ids[None],
            POSITION_IDS: positions[None, len(positions) - len(token_ids) :],
            KEY_POSITIONS: positions[None],
            ATTENTION_MASK: mask[None, None],
            WANTED_POSITIONS: wanted,
            PAIR_ROWS: places,
            PAIR_TOKENS: next_tokens if len(rows) else asked,
        }
        return self._passes.run(state.cache, inputs, keep=keep)[: len(rows)]


def _require_provider(session: onnxruntime.InferenceSession, device: str, provider: str) -> None:
    """Refuse a session that took the CPU in place of the device that was asked for."""
    if provider not in (used := session.get_providers()):
        raise EnvironmentProblemError(
            f"device {device}: ONNX Runtime lists {provider} but runs on {', '.join(used)}: it "
            "finds no GPU, or its version of CUDA and cuDNN is not installed; mend that, or use "
            "--device cpu"
        )


class _HostPasses:
    """Forward passes on the CPU, with the KV cache in arrays."""

    def __init__(
        self, session: onnxruntime.InferenceSession, empty_cache: npt.NDArray[Any]
    ) -> None:
        self._session, self._empty_cache = session, empty_cache

    def run(
        self, cache: KvCache, inputs: Mapping[str, npt.NDArray[Any]], *, keep: bool
    ) -> LogProbs:
        """Run one forward pass.

        Args:
            cache: The earlier passes' keys and values; extended in place if ``keep``.
            inputs: The graph's other inputs.
            keep: Whether to add the new positions to the cache.

        Returns:
            float32 [pairs].
        """
        past = {PAST_KEYS: self._joined(cache.keys), PAST_VALUES: self._joined(cache.values)}
        log_probs, keys, values = self._session.run(OUTPUT_NAMES, dict(inputs) | past)
        if keep:
            cache.add(keys, values)
        found: LogProbs = log_probs
        return found

    def _joined(self, pieces: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return join_pieces(pieces) if pieces else self._empty_cache
