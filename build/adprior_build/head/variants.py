"""Forms of the prior head: what g computes from the features, and how it is fitted.

To add a form, write a class with the members of `adprior_build.head.onnx_head.Head` and a function
that fits it, and add that function to `VARIANTS`. Every form minimises the log-loss of
sigmoid(offset + g(x)). None sees the ranker's logit z, so that z' = z + g(x) increases with z.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import helper

from adprior_build.head.logistic_fit import fit_logistic
from adprior_build.head.onnx_head import Head, LogisticHead
from adprior_runtime.errors import ArtefactError, InvalidInputError
from adprior_runtime.head.features import FEATURE_NAMES

_Float32Array = npt.NDArray[np.float32]
_Float64Array = npt.NDArray[np.float64]

_IS_EXACT: Final = FEATURE_NAMES.index("is_exact")
_OTHERS: Final = [column for column in range(len(FEATURE_NAMES)) if column != _IS_EXACT]
_BENT: Final = ("log_prob", "log_prob_minus_popularity", "inverse_rank")
"""The features that vary between the candidates of a request."""
_QUANTILES: Final = (0.2, 0.4, 0.6, 0.8, 0.95)


def fit_variant(
    name: str,
    features: _Float32Array,
    offsets: _Float64Array,
    labels: _Float64Array,
    *,
    l2: float,
    clamp: float,
) -> Head:
    """Fit one of `VARIANTS`.

    Args:
        name: Its name.
        features: [m, features], columns as in `FEATURE_NAMES`.
        offsets: [m], the ranker's logits, with coefficient 1.
        labels: [m], 0 or 1, some of each.
        l2: Penalty on the squared weights of standardised features, at least 0.
        clamp: The largest change of a logit; the fit does not use it.

    Raises:
        InvalidInputError: The variant is unknown, or the fit does not converge.
    """
    if name not in VARIANTS:
        raise InvalidInputError(f"head variant {name}: expected one of {', '.join(VARIANTS)}")
    wide = features.astype(np.float64)
    mean, deviation = wide.mean(axis=0), wide.std(axis=0)
    scale = np.where(deviation > 1e-6, deviation, 1.0)
    scales = {"mean": mean, "scale": scale, "clamp": clamp}
    return VARIANTS[name]((wide - mean) / scale, offsets, labels, l2, scales)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HingeHead:
    """g(x) = b + w . (s, max(0, s[c] - t) ..., s[is_exact] s[j] ...), s = (x - mean) / scale.

    The hinges bend g along a feature. The products, one for every other feature j, give exact
    scores and upper bounds different slopes.

    Attributes:
        weights: float64 [features + hinges + features - 1].
        bias: b.
        mean: float64 [features].
        scale: float64 [features], positive.
        columns: int64 [hinges], c.
        knots: float64 [hinges], t.
        clamp: Positive.
    """

    weights: _Float64Array
    bias: float
    mean: _Float64Array
    scale: _Float64Array
    columns: npt.NDArray[np.int64]
    knots: _Float64Array
    clamp: float

    def __post_init__(self) -> None:
        features = len(FEATURE_NAMES)
        shapes = (self.weights.shape, self.mean.shape, self.scale.shape, self.knots.shape)
        size = features + len(self.columns) + len(_OTHERS)
        expected = ((size,), (features,), (features,), self.columns.shape)
        if shapes != expected:
            raise ArtefactError(
                f"head: weights, mean, scale and knots of shapes {shapes}, expected {expected}"
            )
        numbers = (self.weights, self.mean, self.scale, self.knots, np.array(self.bias))
        if not all(np.isfinite(values).all() for values in numbers):
            raise ArtefactError("head: found a number that is not finite among its weights")
        if not ((self.scale > 0).all() and 0 < self.clamp < np.inf):
            raise ArtefactError(
                f"head: scale {self.scale}, clamp {self.clamp}; expected positive numbers"
            )

    def increments(self, features: _Float32Array) -> _Float64Array:
        """See `adprior_build.head.onnx_head.Head.increments`."""
        basis = self.expand((features.astype(np.float64) - self.mean) / self.scale)
        increments: _Float64Array = (basis * self.weights).sum(axis=1) + self.bias
        return increments

    def expand(self, standardised: _Float64Array) -> _Float64Array:
        """Return s with its hinges and products: [n, features] -> [n, weights]."""
        hinges = np.maximum(standardised[:, self.columns] - self.knots, 0.0)
        products = standardised[:, [_IS_EXACT]] * standardised[:, _OTHERS]
        return np.concatenate([standardised, hinges, products], axis=1)

    def nodes(self, source: str, target: str) -> list[Any]:
        """See `adprior_build.head.onnx_head.Head.nodes`."""
        return [
            helper.make_node("Sub", [source, "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "scale"], ["standardised"]),
            helper.make_node("Gather", ["standardised", "hinge_columns"], ["bent"], axis=1),
            helper.make_node("Sub", ["bent", "knots"], ["beyond"]),
            helper.make_node("Relu", ["beyond"], ["hinges"]),
            helper.make_node("Gather", ["standardised", "exact_column"], ["exact"], axis=1),
            helper.make_node("Gather", ["standardised", "other_columns"], ["others"], axis=1),
            helper.make_node("Mul", ["exact", "others"], ["products"]),
            helper.make_node("Concat", ["standardised", "hinges", "products"], ["basis"], axis=1),
            # A sum along each row: a matrix product may round differently for more rows.
            helper.make_node("Mul", ["basis", "weights"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "row"], ["summed"], keepdims=0),
            helper.make_node("Add", ["summed", "bias"], [target]),
        ]

    def constants(self) -> dict[str, npt.NDArray[Any]]:
        """See `adprior_build.head.onnx_head.Head.constants`."""
        return {
            "mean": self.mean,
            "scale": self.scale,
            "hinge_columns": self.columns,
            "knots": self.knots,
            "exact_column": np.array([_IS_EXACT], dtype=np.int64),
            "other_columns": np.array(_OTHERS, dtype=np.int64),
            "weights": self.weights,
            "bias": np.array(self.bias, dtype=np.float64),
            "row": np.array([1], dtype=np.int64),
        }


_Scales: TypeAlias = Mapping[str, Any]
"""``mean``, ``scale`` and ``clamp``, as every form takes them."""


def _fit_logistic(
    standardised: _Float64Array,
    offsets: _Float64Array,
    labels: _Float64Array,
    l2: float,
    scales: _Scales,
) -> Head:
    weights, bias = fit_logistic(standardised, offsets, labels, l2)
    return LogisticHead(weights=weights, bias=bias, **scales)


def _fit_hinges(
    standardised: _Float64Array,
    offsets: _Float64Array,
    labels: _Float64Array,
    l2: float,
    scales: _Scales,
) -> Head:
    places = [
        (column, knot)
        for column in map(FEATURE_NAMES.index, _BENT)
        for knot in np.unique(np.quantile(standardised[:, column], _QUANTILES)).tolist()
    ]
    columns, knots = zip(*places, strict=True)
    blank = HingeHead(
        weights=np.zeros(len(FEATURE_NAMES) + len(knots) + len(_OTHERS)),
        bias=0.0,
        columns=np.array(columns, dtype=np.int64),
        knots=np.array(knots, dtype=np.float64),
        **scales,
    )
    weights, bias = fit_logistic(blank.expand(standardised), offsets, labels, l2)
    return replace(blank, weights=weights, bias=bias)


_Fit: TypeAlias = Callable[[_Float64Array, _Float64Array, _Float64Array, float, _Scales], Head]

VARIANTS: Final[Mapping[str, _Fit]] = {"logistic": _fit_logistic, "hinges": _fit_hinges}
"""``logistic`` is linear in the six features. ``hinges`` bends along l, l - pi and 1/rank, because
far down the list a step in l means little, and gives upper bounds slopes of their own, because they
say less than exact scores."""
