"""The default engine: packed tree attention on ONNX Runtime, on the CPU.

Only the log-probabilities that are asked for leave the graph, and it computes logits for a part of
the vocabulary at a time. ONNX Runtime's arena keeps the memory of the largest pass for later
passes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import onnxruntime

from adprior_runtime.bundle import ONNX_MODEL_FILE, Bundle
from adprior_runtime.cpu_count import threads_of_each
from adprior_runtime.engines.onnx_graph import MAX_POSITIONS, VOCABULARY, check_graph
from adprior_runtime.engines.onnx_passes import OnnxPasses
from adprior_runtime.engines.packed_tree import PackedTreeEngine, UserTree
from adprior_runtime.errors import ArtefactError, EnvironmentProblemError

_PASS_TOKENS: Final = 256
"""Most tokens of a pass. Attention over the pass's own tokens grows with its square, and
a pass of 256 tokens is bound by arithmetic as one of 512 is."""


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
        # The order of the file: a part of the logits is used up before the next one is computed.
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        options.log_severity_level = 4  # a lower level may quote token ids of a prompt
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            check_graph(session)
            metadata = session.get_modelmeta().custom_metadata_map
            vocabulary, max_positions = int(metadata[VOCABULARY]), int(metadata[MAX_POSITIONS])
            passes = OnnxPasses(session)
            _return_free_memory()
        except Exception as error:  # ONNX Runtime's errors share no public base
            raise ArtefactError(f"{path}: not a language model in ONNX: {error}") from error
        super().__init__(
            passes, vocabulary=vocabulary, max_positions=max_positions, head_ids=head_ids
        )

    def most_tokens(self, state: UserTree) -> int:
        """See `Engine.most_tokens`."""
        return min(super().most_tokens(state), _PASS_TOKENS)

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


def _return_free_memory() -> None:
    """Give the memory that loading a graph needed back to the system: a fifth of the weights.

    ONNX Runtime packs matrices and frees the originals, which glibc would keep.
    """
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
