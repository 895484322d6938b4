"""Kinds of prior head beside the logistic one, each in NumPy and as ONNX nodes.

None sees the ranker's logit: z' = z + g(x) rises with z whatever g is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper

from adprior_runtime.errors import ArtefactError
from adprior_runtime.head.features import FEATURE_NAMES

_Float64Array = npt.NDArray[np.float64]
_Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BasisHead:
    """g(x) = b + w . (s, max(0, s[c_h] - t_h) ..., s[i_p] s[j_p] ...), s = (x - mean) / scale.

    Linear in the standardised features, in hinges, which bend g along one feature, and in
    products, which let one feature say how much another counts.

    Attributes:
        weights: float64 [features + hinges + products].
        bias: b.
        mean: float64 [features].
        scale: float64 [features], positive.
        hinge_columns: int64 [hinges], c.
        knots: float64 [hinges], t.
        products: int64 [products, 2], i and j.
        clamp: Positive.
    """

    weights: _Float64Array
    bias: float
    mean: _Float64Array
    scale: _Float64Array
    hinge_columns: npt.NDArray[np.int64]
    knots: _Float64Array
    products: npt.NDArray[np.int64]
    clamp: float

    def __post_init__(self) -> None:
        size = len(FEATURE_NAMES) + len(self.hinge_columns) + len(self.products)
        if self.weights.shape != (size,) or self.products.shape != (len(self.products), 2):
            raise ArtefactError(
                f"head: {self.weights.shape} weights and products {self.products.shape}, "
                f"expected ({size},) and pairs"
            )
        _check(self.mean, self.scale, self.clamp, self.weights, self.knots, np.array(self.bias))

    def increments(self, features: _Float32Array) -> _Float64Array:
        """See `adprior_build.head.onnx_head.Head.increments`."""
        found: _Float64Array = (self._expand(features) * self.weights).sum(axis=1) + self.bias
        return found

    def _expand(self, features: _Float32Array) -> _Float64Array:
        return self.expand_standardised((features.astype(np.float64) - self.mean) / self.scale)

    def expand_standardised(self, standardised: _Float64Array) -> _Float64Array:
        """Return the basis of s: [n, features] -> [n, features + hinges + products]."""
        hinges = np.maximum(standardised[:, self.hinge_columns] - self.knots, 0.0)
        left, right = self.products.T
        return np.concatenate(
            [standardised, hinges, standardised[:, left] * standardised[:, right]], axis=1
        )

    def nodes(self, source: str, target: str) -> list[Any]:
        """See `adprior_build.head.onnx_head.Head.nodes`."""
        return [
            *_standardise(source),
            helper.make_node("Gather", ["standardised", "hinge_columns"], ["bent"], axis=1),
            helper.make_node("Sub", ["bent", "knots"], ["beyond"]),
            helper.make_node("Relu", ["beyond"], ["hinges"]),
            helper.make_node("Gather", ["standardised", "left_columns"], ["left"], axis=1),
            helper.make_node("Gather", ["standardised", "right_columns"], ["right"], axis=1),
            helper.make_node("Mul", ["left", "right"], ["products"]),
            helper.make_node("Concat", ["standardised", "hinges", "products"], ["basis"], axis=1),
            helper.make_node("Mul", ["basis", "weights"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "row"], ["summed"], keepdims=0),
            helper.make_node("Add", ["summed", "bias"], [target]),
        ]

    def constants(self) -> dict[str, npt.NDArray[Any]]:
        """See `adprior_build.head.onnx_head.Head.constants`."""
        left, right = self.products.T
        return {
            "mean": self.mean,
            "scale": self.scale,
            "hinge_columns": self.hinge_columns,
            "knots": self.knots,
            "left_columns": np.ascontiguousarray(left),
            "right_columns": np.ascontiguousarray(right),
            "weights": self.weights,
            "bias": np.array(self.bias, dtype=np.float64),
            "row": np.array([1], dtype=np.int64),
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MlpHead:
    """g(x) = b + v . s + w . softsign(B + A s), s = (x - mean) / scale.

    Softsign, u / (1 + |u|), is arithmetic whose rounding is the same for one row and for many.

    Attributes:
        inner: float64 [features, hidden], A.
        inner_bias: float64 [hidden], B.
        weights: float64 [hidden], w.
        direct: float64 [features], v: the logistic head is inside this one.
        bias: b.
        mean: float64 [features].
        scale: float64 [features], positive.
        clamp: Positive.
    """

    inner: _Float64Array
    inner_bias: _Float64Array
    weights: _Float64Array
    direct: _Float64Array
    bias: float
    mean: _Float64Array
    scale: _Float64Array
    clamp: float

    def __post_init__(self) -> None:
        hidden = len(self.weights)
        parts = (self.inner, self.inner_bias, self.weights, self.direct)
        shapes = tuple(part.shape for part in parts)
        features = len(FEATURE_NAMES)
        if shapes != ((features, hidden), (hidden,), (hidden,), (features,)):
            raise ArtefactError(f"head: layers of shapes {shapes}, which do not fit each other")
        _check(self.mean, self.scale, self.clamp, *parts, np.array(self.bias))

    def increments(self, features: _Float32Array) -> _Float64Array:
        """See `adprior_build.head.onnx_head.Head.increments`."""
        standardised = (features.astype(np.float64) - self.mean) / self.scale
        hidden = (standardised[:, :, None] * self.inner).sum(axis=1) + self.inner_bias
        active = hidden / (1.0 + np.abs(hidden))
        straight = (standardised * self.direct).sum(axis=1)
        found: _Float64Array = (active * self.weights).sum(axis=1) + straight + self.bias
        return found

    def nodes(self, source: str, target: str) -> list[Any]:
        """See `adprior_build.head.onnx_head.Head.nodes`."""
        # Sums along an axis: a matrix product's rounding may change with the number of rows.
        return [
            *_standardise(source),
            helper.make_node("Unsqueeze", ["standardised", "depth"], ["deep"]),
            helper.make_node("Mul", ["deep", "inner"], ["spread"]),
            helper.make_node("ReduceSum", ["spread", "row"], ["gathered"], keepdims=0),
            helper.make_node("Add", ["gathered", "inner_bias"], ["hidden"]),
            helper.make_node("Abs", ["hidden"], ["size"]),
            helper.make_node("Add", ["size", "one"], ["beyond_one"]),
            helper.make_node("Div", ["hidden", "beyond_one"], ["active"]),
            helper.make_node("Mul", ["active", "weights"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "row"], ["curved"], keepdims=0),
            helper.make_node("Mul", ["standardised", "direct"], ["direct_weighted"]),
            helper.make_node("ReduceSum", ["direct_weighted", "row"], ["straight"], keepdims=0),
            helper.make_node("Add", ["curved", "straight"], ["summed"]),
            helper.make_node("Add", ["summed", "bias"], [target]),
        ]

    def constants(self) -> dict[str, npt.NDArray[Any]]:
        """See `adprior_build.head.onnx_head.Head.constants`."""
        return {
            "mean": self.mean,
            "scale": self.scale,
            "inner": self.inner,
            "inner_bias": self.inner_bias,
            "weights": self.weights,
            "direct": self.direct,
            "bias": np.array(self.bias, dtype=np.float64),
            "one": np.array(1.0, dtype=np.float64),
            "row": np.array([1], dtype=np.int64),
            "depth": np.array([2], dtype=np.int64),
        }


def _standardise(source: str) -> list[Any]:
    return [
        helper.make_node("Sub", [source, "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["standardised"]),
    ]


def _check(mean: _Float64Array, scale: _Float64Array, clamp: float, *others: _Float64Array) -> None:
    expected = (len(FEATURE_NAMES),)
    if mean.shape != expected or scale.shape != expected:
        raise ArtefactError(f"head: mean {mean.shape}, scale {scale.shape}, expected {expected}")
    if not all(np.isfinite(values).all() for values in (mean, scale, *others)):
        raise ArtefactError("head: found a number that is not finite among its weights")
    if not ((scale > 0).all() and 0 < clamp < np.inf):
        raise ArtefactError(f"head: scale {scale}, clamp {clamp}; expected positive numbers")
