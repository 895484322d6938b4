"""Checks that an engine computes the same as the checkpoint that its files were written from.

The reference is the checkpoint in double precision (`adprior_build.onnx_graph.reference`), with its
matrices rounded as the engine's are. In single precision, with the engine's matrix product, that
same program differs from it by e, the effect of rounding with these weights on these prompts. The
engine does the same arithmetic in another order, so it differs by about e. If a mask, position or
weight is wrong, the difference is about as large as the spread of the log-probabilities. The
tolerance is between the two::

    explained = max(16 e, 16 u size)        tolerance = min(explained, spread / 20)

Here u is the unit roundoff of single precision, 2^-24, size is the largest absolute
log-probability, and spread is the largest standard deviation of the log-probabilities after one
prefix.

What rounding the matrices costs is measured apart: the *loss*, against the checkpoint with its own
weights, on the tokens that each prefix makes most probable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adprior_build.onnx_graph.architecture import read_architecture
from adprior_build.onnx_graph.matrices import Weights
from adprior_build.onnx_graph.reference import Multiply, Reference, Rounding
from adprior_runtime.engines.base import ROOT, Engine
from adprior_runtime.errors import ArtefactError

LONGEST_CHECKED_PROMPT: Final = 640
"""The number of tokens. A fault in a longer sliding window is not found."""

_Rows = npt.NDArray[np.float64]
_UNIT_ROUNDOFF: Final = 2.0**-24
_TIMES_SINGLE: Final = 16.0
_TIMES_ROUNDOFF: Final = 16.0
_SHARE_OF_SPREAD: Final = 0.05
_PROBABLE_TOKENS: Final = 100
_SHORT_PROMPTS: Final = (1, 13, 40)
_ENGINE_FAULT: Final = (
    "the engine is at fault, not the training: install the versions of its packages that "
    "pyproject.toml names"
)
_LAST: Final = 3
"""Positions compared at the end of each sequence: the prompt's last, and two tokens of a tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """The difference between an engine and its checkpoint, in log-probability.

    Attributes:
        difference: The largest difference from the checkpoint in double precision, its matrices
            rounded as the engine's.
        tolerance: The largest difference that arithmetic in single precision explains.
        mean_loss, largest_loss: The change that rounding the matrices makes to the log-probability
            of the most probable tokens, `_PROBABLE_TOKENS` after each prefix. 0 without rounding.
    """

    difference: float
    tolerance: float
    mean_loss: float
    largest_loss: float

    def in_words(self, precision: str) -> str:
        """Return a line for people."""
        line = (
            "the engine agrees with the checkpoint to "
            f"{self.difference:.1e} in log-probability (at most {self.tolerance:.1e})"
        )
        if self.mean_loss == 0:
            return line
        return (
            f"{line}; {precision} changes a probable token's by {self.mean_loss:.3f} on average, "
            f"{self.largest_loss:.2f} at most"
        )


def check_parity(
    config: Mapping[str, Any],
    weights: Weights,
    engine: Engine[Any],
    *,
    name: str,
    precision: str = "fp32",
    rounding: Rounding | None = None,
    multiply: Multiply = np.matmul,
    text: Sequence[int] = (),
    seed: int = 0,
) -> Parity:
    """Compare an engine with its checkpoint on random trees of continuations.

    For each prompt, the engine grows a random tree of 8 nodes in two steps. The log-probabilities
    along its paths are compared with plain sequences of prompt and path.

    Args:
        config: The content of the checkpoint's ``config.json``.
        weights: Its weights.
        engine: The engine, with the files that were written from them.
        name: The checkpoint's name, for messages.
        precision: How the engine stores matrices, for messages.
        rounding: How that rounds them; None for not at all.
        multiply: How the engine multiplies with them, in single precision.
        text: Token ids of a typical prompt, as long as may be: prompts are its beginnings, and
            continuations are its tokens. Without it, both are random.
        seed: The seed of prompts and trees.

    Raises:
        ArtefactError: The engine, or the checkpoint itself, gives NaN or infinity; or they differ
            by more than rounding explains.
    """
    of = read_architecture(config)
    random = np.random.default_rng(seed)
    sequences: list[list[int]] = []
    found: list[_Rows] = []
    tokens = np.asarray(text, dtype=np.int64) if len(text) else np.arange(of.vocabulary)
    for most in (LONGEST_CHECKED_PROMPT, *_SHORT_PROMPTS):
        length = min(most, of.max_positions // 2)
        prompt = (tokens[:length] if len(text) else random.choice(tokens, size=length)).tolist()
        leaves, rows = _grow_tree(engine, prompt, of.vocabulary, tokens, random)
        # The reference reads a prompt once more for each of its leaves.
        compared = slice(None) if most in _SHORT_PROMPTS else slice(1)
        sequences += leaves[compared]
        found += rows[compared]
    answers = np.stack(found)
    reference = Reference(of, weights, rounding).log_probs(sequences, _LAST)
    single = Reference(of, weights, rounding, np.float32, multiply).log_probs(sequences, _LAST)
    _require_numbers(name, precision, reference=reference, single=single, answers=answers)
    exact = reference if rounding is None else Reference(of, weights).log_probs(sequences, _LAST)
    return _compare(name, precision, exact, reference=reference, single=single, answers=answers)


def _grow_tree(
    engine: Engine[Any],
    prompt: list[int],
    vocabulary: int,
    tokens: npt.NDArray[np.int64],
    random: np.random.Generator,
) -> tuple[list[list[int]], list[_Rows]]:
    """Return random continuations by two of ``tokens``, and the log-probabilities along each.

    Returns:
        Each prompt with its two tokens, and float64 [3, vocabulary] after the prompt, the first and
        the second token.
    """
    everything = np.arange(vocabulary)
    state, ranked = engine.prefill(prompt, everything)
    root = ranked.read_all()

    def extend(tokens: list[int], parents: list[int]) -> npt.NDArray[np.float32]:
        rows = np.repeat(np.arange(len(tokens)), vocabulary)
        asked = np.tile(everything, len(tokens))
        return engine.extend(state, tokens, parents, rows, asked).reshape(len(tokens), -1)

    first = random.choice(tokens, size=3).tolist()
    after_first = extend(first, [ROOT] * 3)
    second = random.choice(tokens, size=5).tolist()
    parents = [0, 1, 2, *random.integers(0, 3, size=2).tolist()]
    after_second = extend(second, parents)
    leaves = [[*prompt, first[up], token] for up, token in zip(parents, second, strict=True)]
    rows = [
        np.stack([root, after_first[up], row]).astype(np.float64)
        for up, row in zip(parents, after_second, strict=True)
    ]
    return leaves, rows


def _require_numbers(
    name: str, precision: str, *, reference: _Rows, single: _Rows, answers: _Rows
) -> None:
    bad = "NaN or infinite log-probabilities"
    for rows, where in ((reference, ""), (single, " in single precision")):
        if not np.isfinite(rows).all():
            raise ArtefactError(
                f"{name}: the checkpoint itself gives {bad}{where}: its weights are damaged, or "
                "its training diverged; train it again, with a lower --learning-rate"
            )
    if not np.isfinite(answers).all():
        raise ArtefactError(
            f"{name}: the engine in {precision} gives {bad}, the checkpoint none; {_ENGINE_FAULT}"
        )


def _compare(
    name: str, precision: str, exact: _Rows, *, reference: _Rows, single: _Rows, answers: _Rows
) -> Parity:
    in_single = float(np.abs(single - reference).max())
    size, spread = float(np.abs(reference).max()), float(reference.std(axis=-1).max())
    explained = max(_TIMES_SINGLE * in_single, _TIMES_ROUNDOFF * _UNIT_ROUNDOFF * size)
    tolerance = min(explained, _SHARE_OF_SPREAD * spread)
    probable = np.argsort(-exact, axis=-1)[..., :_PROBABLE_TOKENS]
    loss = np.abs(np.take_along_axis(reference - exact, probable, axis=-1))
    difference = float(np.abs(answers - reference).max())
    parity = Parity(
        difference=difference,
        tolerance=tolerance,
        mean_loss=float(loss.mean()),
        largest_loss=float(loss.max()),
    )
    if not parity.difference <= parity.tolerance:
        raise ArtefactError(
            f"{name}: the engine in {precision} differs from the checkpoint by "
            f"{parity.difference:.1e} in log-probability, at most {parity.tolerance:.1e} is "
            f"accepted; {_ENGINE_FAULT}"
        )
    return parity
