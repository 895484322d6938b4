"""The same decoder in NumPy: what the engines are checked against.

It computes whole sequences, without a cache and without a tree, in the precision that is asked for.
Tests compare it with transformers for every family.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from adprior_build.onnx_graph.matrices import Weights
from adprior_runtime.engines.architecture import EMBEDDING, OUTPUT, Architecture
from adprior_runtime.terminal.progress import track

_Array = npt.NDArray[Any]
Multiply = Callable[[_Array, _Array], Any]
"""A matrix product."""

_OUTPUT_ROWS: Final = 16_384
"""Tokens whose logits are computed at once: the whole output matrix in float64 may be gigabytes."""


class Rounding(Protocol):
    """A way to store matrices in fewer bits."""

    def rounded(self, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the matrix that the stored numbers stand for: [rows, columns]."""
        ...


class Reference:
    """Computes log-probabilities as a checkpoint defines them.

    Args:
        architecture: The checkpoint's.
        weights: Its weights; each is read once in a call of `log_probs`.
        rounding: How matrices are rounded first; None leaves them.
        dtype: The precision of the arithmetic: float64 or float32.
        multiply: Multiplies values [rows, inputs] with a matrix [inputs, outputs].
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: Weights,
        rounding: Rounding | None = None,
        dtype: npt.DTypeLike = np.float64,
        multiply: Multiply = np.matmul,
    ) -> None:
        self._of, self._weights, self._rounding = architecture, weights, rounding
        self._multiply = multiply
        self._dtype: np.dtype[Any] = np.dtype(dtype)

    def log_probs(self, sequences: Sequence[Sequence[int]], last: int) -> _Array:
        """Return log-probabilities after the last tokens of sequences.

        Args:
            sequences: Token ids, each at least ``last``.
            last: How many tokens of each sequence.

        Returns:
            [sequences, last, vocabulary], of the next token.
        """
        with np.errstate(all="ignore"):  # a damaged checkpoint gives NaN, and the caller says so
            return self._log_probs(sequences, last)

    def _log_probs(self, sequences: Sequence[Sequence[int]], last: int) -> _Array:
        of = self._of
        embeddings = self._rounded(EMBEDDING)
        scale = self._number(of.embedding_scale)
        streams = [embeddings[list(sequence)].astype(self._dtype) * scale for sequence in sequences]
        layers = range(of.layers)
        for layer in track(layers, desc="checking the engine", unit="layer", leave=False):
            run = self._layer(layer)
            streams = [run(stream) for stream in streams]
        output = embeddings if of.tied else self._rounded(OUTPUT)
        hidden = self._norm("model.norm")(np.concatenate([stream[-last:] for stream in streams]))
        logits = np.empty((len(hidden), len(output)), dtype=self._dtype)
        for start in range(0, len(output), _OUTPUT_ROWS):
            part = slice(start, start + _OUTPUT_ROWS)
            logits[:, part] = self._multiply(hidden, output[part].astype(self._dtype).T)
        return self._normalised(logits).reshape(len(sequences), last, -1)

    def _normalised(self, logits: _Array) -> _Array:
        logits = _capped(logits, self._of.final_cap)
        logits = logits - logits.max(axis=1, keepdims=True)
        found: _Array = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return found

    def _layer(self, layer: int) -> Callable[[_Array], _Array]:
        prefix, of = f"model.layers.{layer}", self._of
        attend, mlp = self._attention(layer), self._mlp(f"{prefix}.mlp")
        first = self._norm(f"{prefix}.input_layernorm")
        second = self._norm(f"{prefix}.post_attention_layernorm")
        if not of.sandwich:

            def plain(stream: _Array) -> _Array:
                stream = stream + attend(first(stream))
                return stream + mlp(second(stream))

            return plain
        third = self._norm(f"{prefix}.pre_feedforward_layernorm")
        fourth = self._norm(f"{prefix}.post_feedforward_layernorm")

        def sandwich(stream: _Array) -> _Array:
            stream = stream + second(attend(first(stream)))
            return stream + fourth(mlp(third(stream)))

        return sandwich

    def _attention(self, layer: int) -> Callable[[_Array], _Array]:
        of, prefix = self._of, f"model.layers.{layer}.self_attn"
        project = {name: self._linear(f"{prefix}.{name}_proj") for name in "qkvo"}
        norms = {
            name: self._norm(f"{prefix}.{name}_norm")
            if f"{prefix}.{name}_norm.weight" in self._weights
            else _same
            for name in "qk"
        }
        scale, window = self._number(of.attention_scale), of.windows[layer]

        def attend(stream: _Array) -> _Array:
            length = len(stream)
            angles = of.rotations[layer].angles(np.arange(length))
            turn = (np.cos(angles).astype(self._dtype), np.sin(angles).astype(self._dtype))
            query, key, value = (
                project[name](stream).reshape(length, -1, of.head_size).swapaxes(0, 1)
                for name in "qkv"
            )
            query, key = _rotated(norms["q"](query), *turn), _rotated(norms["k"](key), *turn)
            distance = np.arange(length)[:, None] - np.arange(length)
            hidden = (distance < 0) | (distance >= (window or length))
            found = np.empty_like(query)
            for head in range(of.heads):
                shared = head * of.key_value_heads // of.heads
                scores = _capped(query[head] @ key[shared].T * scale, of.attention_cap)
                scores[hidden] = -np.inf
                shares = np.exp(scores - scores.max(axis=1, keepdims=True))
                found[head] = shares / shares.sum(axis=1, keepdims=True) @ value[shared]
            return project["o"](found.swapaxes(0, 1).reshape(length, -1))

        return attend

    def _mlp(self, prefix: str) -> Callable[[_Array], _Array]:
        gate, up, down = (self._linear(f"{prefix}.{name}_proj") for name in ("gate", "up", "down"))
        activate = _ACTIVATIONS[self._of.activation]
        return lambda stream: down(activate(gate(stream)) * up(stream))

    def _linear(self, name: str) -> Callable[[_Array], _Array]:
        matrix = self._rounded(f"{name}.weight").astype(self._dtype).T
        bias = f"{name}.bias"
        offset = np.asarray(self._weights.get(bias, 0.0), dtype=self._dtype)
        return lambda stream: self._multiply(stream, matrix) + offset

    def _norm(self, name: str) -> Callable[[_Array], _Array]:
        weight = np.asarray(self._weights[f"{name}.weight"], dtype=self._dtype)
        weight = weight + self._number(self._of.norm_offset)
        epsilon = self._number(self._of.norm_epsilon)

        def norm(stream: _Array) -> _Array:
            square = np.mean(stream * stream, axis=-1, keepdims=True)
            scaled: _Array = stream / np.sqrt(square + epsilon) * weight
            return scaled

        return norm

    def _number(self, value: float) -> Any:
        return np.asarray(value, dtype=self._dtype)[()]

    def _rounded(self, name: str) -> npt.NDArray[np.float32]:
        matrix = np.asarray(self._weights[name], dtype=np.float32)
        return matrix if self._rounding is None else self._rounding.rounded(matrix)


def _same(values: _Array) -> _Array:
    return values


def _capped(values: _Array, cap: float | None) -> _Array:
    return values if cap is None else np.tanh(values / cap) * cap


def _rotated(values: _Array, cosines: _Array, sines: _Array) -> _Array:
    """Rotate each pair (i, i + half) of a head's numbers: [heads, positions, head_size]."""
    first, second = np.split(values, 2, axis=-1)
    turned: _Array = np.concatenate(
        [first * cosines - second * sines, second * cosines + first * sines], axis=-1
    )
    return turned


def _silu(values: _Array) -> _Array:
    halves: _Array = values / 2
    result: _Array = halves * (1 + np.tanh(halves))  # x / (1 + exp(-x)), which could overflow
    return result


def _gelu_tanh(values: _Array) -> _Array:
    inner = math.sqrt(2 / math.pi) * (values + 0.044715 * values * values * values)
    result: _Array = values / 2 * (1 + np.tanh(inner))
    return result


def _gelu(values: _Array) -> _Array:
    erf = np.vectorize(math.erf, otypes=[values.dtype])
    result: _Array = values / 2 * (1 + erf(values / math.sqrt(2)))
    return result


_ACTIVATIONS: dict[str, Callable[[_Array], _Array]] = {
    "silu": _silu,
    "gelu": _gelu,
    "gelu_pytorch_tanh": _gelu_tanh,
}
