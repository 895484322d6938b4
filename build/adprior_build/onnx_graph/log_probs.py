"""Writes the embedding of tokens, and the log-probabilities of wanted tokens.

Both go by chunks of the vocabulary, so that no pass holds a number for each token of a large
vocabulary and each of its rows at once. A log-probability is ``logit - logsumexp(logits of the
row)``. The wanted logits are taken from the very products that the sum is made of.
"""

from __future__ import annotations

import itertools

import numpy as np

from adprior_build.onnx_graph.decoder import soft_capped
from adprior_build.onnx_graph.matrices import Matrices, Matrix
from adprior_build.onnx_graph.model_file import ModelFile


class Vocabulary:
    """A matrix with a row for each token, in chunks.

    Args:
        file: The model in the making.
        matrices: The checkpoint's.
        name: The matrix's name.
        shape: Tokens and hidden size.
        chunk: Most tokens of a chunk.
        is_tied: Whether it serves both `embed` and `log_probs`.
    """

    def __init__(
        self,
        file: ModelFile,
        matrices: Matrices,
        name: str,
        shape: tuple[int, int],
        chunk: int,
        *,
        is_tied: bool = False,
    ) -> None:
        self._file = file
        count = -(-shape[0] // chunk)
        # The only chunk of a small vocabulary is small enough to be in memory twice.
        is_packed = not is_tied or count == 1
        bounds = [shape[0] * place // count for place in range(count + 1)]
        self._chunks: list[tuple[int, int, Matrix]] = [
            (start, stop - start, matrices.rows(name, start, stop, shape, is_packed=is_packed))
            for start, stop in itertools.pairwise(bounds)
        ]

    def embed(self, tokens: str, scale: float) -> str:
        """Return the rows of ``tokens``, int64 [n], times ``scale``: float [n, hidden]."""
        column = self._file.node("Unsqueeze", tokens, self._file.constant([1]))
        parts = [
            (start, matrix.gather(self._within(tokens, start, size)))
            for start, size, matrix in self._chunks
        ]
        found = self._chosen(column, parts)
        if scale == 1.0:
            return found
        return self._file.node("Mul", found, self._file.constant(scale, np.float32))

    def log_probs(self, hidden: str, rows: str, tokens: str, cap: float | None) -> str:
        """Return the log-probabilities of pairs: float [pairs].

        Args:
            hidden: Float [wanted, hidden].
            rows: int64 [pairs], rows of ``hidden``.
            tokens: int64 [pairs].
            cap: The logits' soft cap.
        """
        file = self._file
        parts, sums = [], []
        for start, size, matrix in self._chunks:
            logits = soft_capped(file, matrix.product(hidden), cap)
            flat = file.node("Reshape", logits, file.constant([-1]))
            first = file.node("Mul", rows, file.constant(size))
            places = file.node("Add", first, self._within(tokens, start, size))
            parts.append((start, file.node("Gather", flat, places)))
            # log(sum) is the largest logit less its log-softmax: both have fast kernels.
            largest = [
                file.node("ReduceMax", each, file.constant([1]), keepdims=1)
                for each in (logits, file.node("LogSoftmax", logits, axis=-1))
            ]
            sums.append(file.node("Sub", *largest))
        total = sums[0]
        if len(sums) > 1:
            joined = file.node("Concat", *sums, axis=1)
            total = file.node("ReduceLogSumExp", joined, file.constant([1]), keepdims=1)
        total = file.node("Reshape", total, file.constant([-1]))
        return file.node("Sub", self._chosen(tokens, parts), file.node("Gather", total, rows))

    def _within(self, tokens: str, start: int, size: int) -> str:
        """Return the tokens' places in a chunk, the nearest one if they are in another."""
        if len(self._chunks) == 1:
            return tokens
        places = self._file.node("Sub", tokens, self._file.constant(start))
        return self._file.node(
            "Clip", places, self._file.constant(0), self._file.constant(size - 1)
        )

    def _chosen(self, tokens: str, parts: list[tuple[int, str]]) -> str:
        """Return for each token the part of its chunk, given as the chunk's start and values."""
        found = parts[0][1]
        for start, values in parts[1:]:
            is_here = self._file.node("GreaterOrEqual", tokens, self._file.constant(start))
            found = self._file.node("Where", is_here, values, found)
        return found
