"""The checkpoint's weights as constants of a graph, and the nodes that multiply by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from adprior_build.onnx_graph.model_file import ModelFile
from adprior_build.onnx_graph.quantised_weights import Quantisation
from adprior_runtime.errors import InvalidInputError

_Float32Array = npt.NDArray[np.float32]
Weights = Mapping[str, npt.NDArray[Any]]
"""A checkpoint's weights by their Hugging Face names. A value may be read when it is asked for."""


class Matrices:
    """Takes weights from a checkpoint, and remembers which were taken.

    Args:
        file: The model in the making.
        weights: The checkpoint's.
        quantisation: How matrices are rounded; None keeps single precision.
    """

    def __init__(
        self, file: ModelFile, weights: Weights, quantisation: Quantisation | None
    ) -> None:
        self._file, self._weights, self._quantisation = file, weights, quantisation
        self._names = frozenset(weights)
        self._taken: set[str] = set()
        self._last: tuple[str, _Float32Array] | None = None

    def has(self, name: str) -> bool:
        """Return whether the checkpoint has a weight."""
        return name in self._names

    def require_all_taken(self) -> None:
        """Refuse a checkpoint with weights that the graph does not use.

        Raises:
            InvalidInputError: There are such weights.
        """
        if left := sorted(self._names - self._taken):
            raise InvalidInputError(
                f"the checkpoint has {len(left)} weights that its config.json does not explain, "
                f"among them {left[0]}"
            )

    def vector(self, names: Sequence[str], size: int, offset: float = 0.0) -> str:
        """Return the constant of vectors of one size, joined, plus an offset."""
        shapes = [(size // len(names),)] * len(names)
        self._require(names)
        return self._file.weight(
            "+".join(names), np.float32, (size,), lambda: self._joined(names, shapes) + offset
        )

    def product(self, values: str, names: Sequence[str], sizes: Sequence[int], columns: int) -> str:
        """Return ``values`` times the transposed matrices, one result after another, plus biases.

        Args:
            values: Float [n, columns].
            names: The matrices' names, without ``.weight``.
            sizes: The rows of each matrix.
            columns: Columns of each matrix.
        """
        weights = [f"{name}.weight" for name in names]
        biases = [f"{name}.bias" for name in names]
        bias = ""
        if self.has(biases[0]):
            self._require(biases)
            bias = self._file.weight(
                "+".join(biases),
                np.float32,
                (sum(sizes),),
                lambda: self._joined(biases, [(size,) for size in sizes]),
            )
        self._require(weights)
        shapes = [(size, columns) for size in sizes]
        matrix = Matrix(
            self._file,
            "+".join(weights),
            (sum(sizes), columns),
            lambda: self._joined(weights, shapes),
            self._quantisation,
        )
        return matrix.product(values, bias)

    def rows(
        self, name: str, start: int, stop: int, shape: tuple[int, int], *, is_packed: bool
    ) -> Matrix:
        """Return rows ``start`` to ``stop`` of the matrix ``name`` of ``shape``; see `Matrix`."""
        self._require([name])
        return Matrix(
            self._file,
            f"{name}.{start}",
            (stop - start, shape[1]),
            lambda: self._joined([name], [shape])[start:stop],
            self._quantisation,
            is_packed=is_packed,
        )

    def _require(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self._names:
                raise InvalidInputError(f"the checkpoint has no weight {name}")
        self._taken.update(names)

    def _joined(self, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> _Float32Array:
        parts = [self._read(name, shape) for name, shape in zip(names, shapes, strict=True)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _read(self, name: str, shape: tuple[int, ...]) -> _Float32Array:
        """Read a weight; the last one is kept, because a large matrix is written in parts."""
        if self._last is None or self._last[0] != name:
            self._last = None
            part = np.asarray(self._weights[name], dtype=np.float32)
            if part.shape != shape:
                raise InvalidInputError(
                    f"the checkpoint's {name} is {list(part.shape)}, "
                    f"by its config.json it is {list(shape)}"
                )
            self._last = (name, part)
        return self._last[1]


class Matrix:
    """One matrix in the graph, by which several nodes may multiply and from which they take rows.

    Args:
        file: The model in the making.
        name: Its name.
        shape: Rows and columns.
        load: Returns it in single precision.
        quantisation: How it is rounded; None keeps single precision.
        is_packed: Whether ONNX Runtime packs it for products. If rows are taken from it too, it
            would be in memory twice. Products take up to a sixth longer without.
    """

    def __init__(
        self,
        file: ModelFile,
        name: str,
        shape: tuple[int, int],
        load: Any,
        quantisation: Quantisation | None,
        *,
        is_packed: bool = True,
    ) -> None:
        self._file, self._shape, self._quantisation = file, shape, quantisation
        if quantisation is None:
            self._constants = [file.weight(name, np.float32, shape, load, is_packed=is_packed)]
        else:
            self._constants = quantisation.declare(file, name, shape, load)

    def product(self, values: str, bias: str = "") -> str:
        """Return values [n, columns] times the transposed matrix, plus a bias: [n, rows]."""
        if self._quantisation is None:
            inputs = [values, *self._constants, *([bias] if bias else [])]
            return self._file.node("Gemm", *inputs, transB=1)
        return self._quantisation.product(self._file, self._constants, self._shape, values, bias)

    def gather(self, places: str) -> str:
        """Return the rows at ``places``, int64 [n], in single precision: [n, columns]."""
        if self._quantisation is None:
            return self._file.node("Gather", *self._constants, places, axis=0)
        return self._quantisation.gather(self._file, self._constants, places, self._shape[1])
