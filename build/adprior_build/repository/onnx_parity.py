"""Checks that an ONNX graph computes the same as its checkpoint.

The reference is the checkpoint, run by torch in double precision. In single precision torch itself
differs from the reference by e, the effect of rounding with these weights on these prompts. A graph
does the same arithmetic in another order, so it differs by about e. In half precision the unit
roundoff is 2^13 times as large, so the graph differs by about 2^13 e. If a mask, position or weight
is wrong, the difference is about as large as the spread of the log-probabilities. The tolerance is
between the two::

    explained = max(8 e u / 2^-24, 16 u size)        tolerance = min(explained, spread / 20)

Here u is the unit roundoff of the graph's arithmetic (2^-24 or 2^-11), size is the largest absolute
log-probability, and spread is the largest standard deviation of the log-probabilities after one
prefix. Random models of the Llama, Qwen3 and Gemma 3 families were measured (log-probabilities down
to -800, e from 5e-7 to 9e-3). Their graphs differed from the reference by 0.8 to 1.5 e in fp32, and
by 2,000 to 7,100 e in fp16.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch.overrides import TorchFunctionMode

from adprior_runtime.engines.base import ROOT
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.errors import ArtefactError

LONGEST_CHECKED_PROMPT: Final = 1024
"""The number of tokens. A fault in a longer sliding window is not found."""
LARGEST_HALF: Final = 65_504
"""The largest number of half precision."""

_Rows = npt.NDArray[np.float64]
_UNIT_ROUNDOFF: Final = {"fp32": 2.0**-24, "fp16-weights": 2.0**-24, "fp16": 2.0**-11}
_TIMES_TORCH: Final = 8.0
_TIMES_ROUNDOFF: Final = 16.0
_SHARE_OF_SPREAD: Final = 0.05
_EXPORT_FAULT: Final = (
    "the export is at fault, not the training: install the versions of torch, transformers, onnx "
    "and onnxruntime that adprior[build] names"
)
_HALF_IS_TOO_COARSE: Final = "build with --precision fp32"
_LONG_PROMPT_LEAVES: Final = 2
"""Number of continuations compared: each takes a forward pass in double precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """The difference between a graph and its checkpoint, in log-probability.

    Attributes:
        difference: The largest difference from the checkpoint in double precision.
        tolerance: The largest difference that rounding explains.
    """

    difference: float
    tolerance: float


def check_parity(
    model: Any,
    path: Path,
    *,
    name: str,
    precision: str = "fp32",
    rounds: int = 4,
    seed: int = 0,
) -> Parity:
    """Compare a graph with its checkpoint on random trees of continuations.

    Each round reads a random prompt, grows a random tree of 8 nodes in two steps, and compares the
    log-probabilities after the nodes with plain forward passes over prompt and path. One prompt is
    half as long as the model's positions, but at most `LONGEST_CHECKED_PROMPT`.

    Args:
        model: The checkpoint, in float32, on the CPU; its weights are the same afterwards.
        path: The graph.
        name: The checkpoint's name, for messages.
        precision: The graph's precision: ``fp32``, ``fp16-weights`` or ``fp16``.
        rounds: The number of prompts.
        seed: The seed of prompts and trees.

    Raises:
        ArtefactError: The graph, or the checkpoint itself, gives NaN or infinity; or they differ
            by more than rounding explains.
    """
    random = np.random.default_rng(seed)
    engine = OnnxEngine(path)
    vocabulary = model.get_output_embeddings().weight.shape[0]
    positions = model.config.get_text_config().max_position_embeddings
    lengths = [min(positions // 2, LONGEST_CHECKED_PROMPT), *random.integers(1, 48, rounds - 1)]
    sequences: list[list[int]] = []
    found: list[_Rows] = []
    for number, length in enumerate(lengths):
        prompt = random.integers(0, vocabulary, size=int(length)).tolist()
        leaves, rows = _grow_tree(engine, prompt, vocabulary, random)
        compared = slice(None) if number else slice(_LONG_PROMPT_LEAVES)
        sequences += leaves[compared]
        found += rows[compared]
    graph = np.concatenate(found)
    single = _log_probs(model, sequences)
    with _double_precision(model):
        reference = _log_probs(model, sequences)
    _require_numbers(name, precision, reference=reference, single=single, graph=graph)
    return _compare(name, precision, reference=reference, single=single, graph=graph)


def _grow_tree(
    engine: OnnxEngine, prompt: list[int], vocabulary: int, random: np.random.Generator
) -> tuple[list[list[int]], list[_Rows]]:
    """Return random continuations by two tokens, and the log-probabilities along each.

    Returns:
        Each prompt with its two tokens, and float64 [3, vocabulary] after the prompt, the first and
        the second token.
    """
    state, root = engine.prefill(prompt)
    first = random.integers(0, vocabulary, size=3).tolist()
    after_first = engine.extend(state, first, [ROOT] * 3)
    second = random.integers(0, vocabulary, size=5).tolist()
    parents = [0, 1, 2, *random.integers(0, 3, size=2).tolist()]
    after_second = engine.extend(state, second, parents)
    leaves = [[*prompt, first[up], token] for up, token in zip(parents, second, strict=True)]
    rows = [
        np.stack([root, after_first[up], row]).astype(np.float64)
        for up, row in zip(parents, after_second, strict=True)
    ]
    return leaves, rows


def _log_probs(model: Any, sequences: Sequence[Sequence[int]]) -> _Rows:
    """Return the log-probabilities after the last three tokens of each sequence, concatenated."""
    rows = []
    with torch.no_grad():
        for sequence in sequences:
            logits = model(torch.tensor([sequence]), use_cache=False, logits_to_keep=3).logits[0]
            rows.append(torch.log_softmax(logits.double(), dim=-1).numpy())
    return np.concatenate(rows)


@contextmanager
def _double_precision(model: Any) -> Iterator[None]:
    """Compute in float64, even where the model's code asks for float32."""
    model.double()
    try:
        with _DoubleForSingle():
            yield
    finally:
        model.float()  # without loss: every float32 is a float64


class _DoubleForSingle(TorchFunctionMode):
    """Replaces float32 in transformers' norms, softmax and rotations, whose code asks for it."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        if func is torch.Tensor.float:
            return args[0].double()
        args = tuple(_doubled(value) for value in args)
        return func(*args, **{key: _doubled(value) for key, value in (kwargs or {}).items()})


def _doubled(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def _require_numbers(
    name: str, precision: str, *, reference: _Rows, single: _Rows, graph: _Rows
) -> None:
    bad = "NaN or infinite log-probabilities"
    for rows, where in ((reference, ""), (single, " in single precision")):
        if not np.isfinite(rows).all():
            raise ArtefactError(
                f"{name}: the checkpoint itself gives {bad}{where}: its weights are damaged, or "
                "its training diverged; train it again, with a lower --learning-rate"
            )
    if np.isfinite(graph).all():
        return
    if precision == "fp16":
        raise ArtefactError(
            f"{name}: the graph in fp16 gives {bad}, the checkpoint none: it computes numbers "
            f"beyond {LARGEST_HALF:,}, the largest of half precision; {_HALF_IS_TOO_COARSE}"
        )
    raise ArtefactError(
        f"{name}: the graph in {precision} gives {bad}, the checkpoint none; {_EXPORT_FAULT}"
    )


def _compare(name: str, precision: str, *, reference: _Rows, single: _Rows, graph: _Rows) -> Parity:
    unit = _UNIT_ROUNDOFF[precision]
    torch_difference = float(np.abs(single - reference).max()) * unit / _UNIT_ROUNDOFF["fp32"]
    size, spread = float(np.abs(reference).max()), float(reference.std(axis=1).max())
    explained = max(_TIMES_TORCH * torch_difference, _TIMES_ROUNDOFF * unit * size)
    parity = Parity(
        difference=float(np.abs(graph - reference).max()),
        tolerance=min(explained, _SHARE_OF_SPREAD * spread),
    )
    if not parity.difference <= parity.tolerance:
        raise ArtefactError(
            f"{name}: the graph in {precision} differs from the checkpoint by "
            f"{parity.difference:.1e} in log-probability, at most {parity.tolerance:.1e} is "
            f"accepted; {_HALF_IS_TOO_COARSE if precision == 'fp16' else _EXPORT_FAULT}"
        )
    return parity
