"""The default engine: packed tree attention on ONNX Runtime, on the CPU.

Only the log-probabilities that are asked for leave the graph, and it computes logits for a part of
the vocabulary at a time. ONNX Runtime's arena keeps the memory of the largest pass for later
passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy.typing as npt
import onnxruntime

from adprior_runtime.bundle import ONNX_MODEL_FILE, Bundle
from adprior_runtime.cpu_count import threads_of_each
from adprior_runtime.engines.base import LogProbs
from adprior_runtime.engines.kv_cache import KvCache, empty_piece, join_pieces
from adprior_runtime.engines.onnx_graph import (
    MAX_POSITIONS,
    OUTPUT_NAMES,
    PAST_KEYS,
    PAST_VALUES,
    VOCABULARY,
    check_graph,
    graph_inputs,
)
from adprior_runtime.engines.packed_tree import PackedTreeEngine, UserPass
from adprior_runtime.errors import ArtefactError, EnvironmentProblemError


class OnnxEngine(PackedTreeEngine):
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
    ) -> None:
        """Load the model.

        Args:
            path: The ONNX file.
            threads: Threads of one forward pass; 0 takes the processors this process may use.
            head_ids: Tokens that all prompts begin with; the model reads them once, here.

        Raises:
            ArtefactError: The file does not contain such a graph.
        """
        options = onnxruntime.SessionOptions()
        # Never 0: ONNX Runtime would start a thread for each core of the machine.
        options.intra_op_num_threads = threads_of_each(1, threads)
        # Idle threads would spin between passes, on CPUs that the search and other processes need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # a lower level may quote token ids of a prompt
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            check_graph(session)
            metadata = session.get_modelmeta().custom_metadata_map
            vocabulary, max_positions = int(metadata[VOCABULARY]), int(metadata[MAX_POSITIONS])
            past = next(item for item in session.get_inputs() if item.name == PAST_KEYS)
            passes = OnnxPasses(session, empty_piece(past))
        except Exception as error:  # ONNX Runtime's errors share no public base
            raise ArtefactError(f"{path}: not a language model in ONNX: {error}") from error
        super().__init__(
            passes, vocabulary=vocabulary, max_positions=max_positions, head_ids=head_ids
        )

    @classmethod
    def of_bundle(cls, bundle: Bundle, *, threads: int = 0, device: str = "cpu") -> Self:
        """Load a bundle's model.

        Raises:
            ArtefactError: As the constructor.
            EnvironmentProblemError: The device is not the CPU.
        """
        if device != "cpu":
            raise EnvironmentProblemError(
                f"device {device}: the engine onnx runs on the CPU; build the bundle with "
                "--engine torch, or use --device cpu"
            )
        head_ids = bundle.manifest.prompt_head_ids
        return cls(bundle.path(ONNX_MODEL_FILE), threads=threads, head_ids=head_ids)


class OnnxPasses:
    """Forward passes, with the KV cache in arrays.

    Args:
        session: The model.
        empty_cache: Keys, or values, of no position.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, empty_cache: npt.NDArray[Any]
    ) -> None:
        self._session, self._empty_cache = session, empty_cache

    def empty_cache(self) -> KvCache:
        """See `Passes.empty_cache`."""
        return KvCache()

    def run(self, part: UserPass) -> LogProbs:
        """See `Passes.run`."""
        cache = part.cache
        past = {PAST_KEYS: self._joined(cache.keys), PAST_VALUES: self._joined(cache.values)}
        log_probs, keys, values = self._session.run(
            OUTPUT_NAMES, graph_inputs(part.tree_pass) | past
        )
        if part.keep:
            cache.add(keys, values)
        found: LogProbs = log_probs
        return found

    def _joined(self, pieces: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return join_pieces(pieces) if pieces else self._empty_cache
