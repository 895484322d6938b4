"""Forms of the prior head: what g computes from the features, and how it is fitted.

To add a form, subclass `Head`, write a function that makes one with weights of 0, and add that
function to `VARIANTS`. The fit of every form minimises the log-loss of sigmoid(offset + g(x)). No
form uses the ranker's logit z as a feature, so that z' = z + g(x) increases with z.
`adprior_build.head.clamp_in_graph` limits g.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import helper

from adprior_build.head.clamp_in_graph import CLAMP
from adprior_build.head.logistic_fit import fit_logistic
from adprior_runtime.errors import ArtefactError, InvalidInputError
from adprior_runtime.head.features import FEATURE_NAMES

_Float32Array = npt.NDArray[np.float32]
_Float64Array = npt.NDArray[np.float64]

_IS_EXACT: Final = FEATURE_NAMES.index("is_exact")
_OTHERS: Final = [column for column in range(len(FEATURE_NAMES)) if column != _IS_EXACT]
_BENT: Final = ("log_prob", "log_prob_minus_popularity", "inverse_rank")
"""The features that vary between the candidates of a request."""
_QUANTILES: Final = (0.2, 0.4, 0.6, 0.8, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Head:
    """The linear form: g(x) = bias + weights . s, with s = (x - mean) / scale.

    A form that is not linear in x expands s to more columns: it replaces `sizes`, `expand`,
    `expand_nodes` and `constants`. NumPy and ONNX both compute in float64, so that they agree.

    Attributes:
        weights: float64 [basis], one for each column of the expanded s.
        bias: Added to the weighted sum.
        mean: float64 [features], the mean of the fitted rows.
        scale: float64 [features], their standard deviation, positive.
        clamp: The largest change of a logit in either direction, positive.
    """

    weights: _Float64Array
    bias: float
    mean: _Float64Array
    scale: _Float64Array
    clamp: float = CLAMP

    def __post_init__(self) -> None:
        """Refuse arrays of other shapes, and numbers that are not finite or not positive."""
        for name, size in self.sizes().items():
            values = getattr(self, name)
            if values.shape != (size,) or not np.isfinite(values).all():
                raise ArtefactError(f"head: {name} {values}, expected {size} finite numbers")
        if not ((self.scale > 0).all() and np.isfinite(self.bias) and 0 < self.clamp < np.inf):
            raise ArtefactError(
                f"head: scale {self.scale}, bias {self.bias}, clamp {self.clamp}; "
                "expected positive scales and clamp, a finite bias"
            )

    def sizes(self) -> dict[str, int]:
        """Return the expected length of each array of numbers."""
        return dict.fromkeys(("weights", "mean", "scale"), len(FEATURE_NAMES))

    def increments(self, features: _Float32Array) -> _Float64Array:
        """Return g of each row, without the clamp: [n, features] -> [n]."""
        basis = self.expand((features.astype(np.float64) - self.mean) / self.scale)
        increments: _Float64Array = (basis * self.weights).sum(axis=1) + self.bias
        return increments

    def expand(self, standardised: _Float64Array) -> _Float64Array:
        """Return the values that the weights apply to: [n, features] -> [n, basis]."""
        return standardised

    def nodes(self, source: str, target: str) -> list[Any]:
        """Return ONNX nodes that compute g from float64 ``source`` [n, features]."""
        expanding, basis = self.expand_nodes("standardised")
        return [
            helper.make_node("Sub", [source, "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "scale"], ["standardised"]),
            *expanding,
            # A sum along each row: a matrix product may round differently for more rows.
            helper.make_node("Mul", [basis, "weights"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "row"], ["summed"], keepdims=0),
            helper.make_node("Add", ["summed", "bias"], [target]),
        ]

    def expand_nodes(self, standardised: str) -> tuple[list[Any], str]:
        """Return ONNX nodes that compute `expand`, and the name of their result."""
        return [], standardised

    def constants(self) -> dict[str, npt.NDArray[Any]]:
        """Return the constants of the nodes by name."""
        return {
            "mean": self.mean,
            "scale": self.scale,
            "weights": self.weights,
            "bias": np.array(self.bias, dtype=np.float64),
            "row": np.array([1], dtype=np.int64),
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HingeHead(Head):
    """g(x) = bias + weights . (s, max(0, s[c] - t) ..., s[is_exact] s[j] ...).

    The hinges bend g along a feature. The products, one for every other feature j, give exact
    scores and upper bounds different slopes.

    Attributes:
        columns: int64 [hinges], c.
        knots: float64 [hinges], t.
    """

    columns: npt.NDArray[np.int64]
    knots: _Float64Array

    def sizes(self) -> dict[str, int]:
        """See `Head.sizes`."""
        hinges = len(self.columns)
        expanded = len(FEATURE_NAMES) + hinges + len(_OTHERS)
        return Head.sizes(self) | {"weights": expanded, "knots": hinges}

    def expand(self, standardised: _Float64Array) -> _Float64Array:
        """Return s with its hinges and products: [n, features] -> [n, basis]."""
        hinges = np.maximum(standardised[:, self.columns] - self.knots, 0.0)
        products = standardised[:, [_IS_EXACT]] * standardised[:, _OTHERS]
        return np.concatenate([standardised, hinges, products], axis=1)

    def expand_nodes(self, standardised: str) -> tuple[list[Any], str]:
        """See `Head.expand_nodes`."""
        nodes = [
            helper.make_node("Gather", [standardised, "hinge_columns"], ["bent"], axis=1),
            helper.make_node("Sub", ["bent", "knots"], ["beyond"]),
            helper.make_node("Relu", ["beyond"], ["hinges"]),
            helper.make_node("Gather", [standardised, "exact_column"], ["exact"], axis=1),
            helper.make_node("Gather", [standardised, "other_columns"], ["others"], axis=1),
            helper.make_node("Mul", ["exact", "others"], ["products"]),
            helper.make_node("Concat", [standardised, "hinges", "products"], ["basis"], axis=1),
        ]
        return nodes, "basis"

    def constants(self) -> dict[str, npt.NDArray[Any]]:
        """See `Head.constants`."""
        return Head.constants(self) | {
            "hinge_columns": self.columns,
            "knots": self.knots,
            "exact_column": np.array([_IS_EXACT], dtype=np.int64),
            "other_columns": np.array(_OTHERS, dtype=np.int64),
        }


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
    standardised = (wide - mean) / scale
    blank = VARIANTS[name](standardised, {"mean": mean, "scale": scale, "clamp": clamp})
    weights, bias = fit_logistic(blank.expand(standardised), offsets, labels, l2)
    return replace(blank, weights=weights, bias=bias)


def _linear(_standardised: _Float64Array, scales: Mapping[str, Any]) -> Head:
    return Head(weights=np.zeros(len(FEATURE_NAMES)), bias=0.0, **scales)


def _hinges(standardised: _Float64Array, scales: Mapping[str, Any]) -> Head:
    places = [
        (column, knot)
        for column in map(FEATURE_NAMES.index, _BENT)
        for knot in np.unique(np.quantile(standardised[:, column], _QUANTILES)).tolist()
    ]
    columns, knots = zip(*places, strict=True)
    return HingeHead(
        weights=np.zeros(len(FEATURE_NAMES) + len(knots) + len(_OTHERS)),
        bias=0.0,
        columns=np.array(columns, dtype=np.int64),
        knots=np.array(knots, dtype=np.float64),
        **scales,
    )


_MakeForm: TypeAlias = Callable[[_Float64Array, Mapping[str, Any]], Head]
"""Makes a head with weights of 0 from standardised features and ``mean``, ``scale``, ``clamp``."""

VARIANTS: Final[Mapping[str, _MakeForm]] = {"logistic": _linear, "hinges": _hinges}
"""``logistic`` is linear in the six features. ``hinges`` bends along l, l - pi and 1/rank, because
a step in l means little for advertisers far down the list. It also gives upper bounds slopes of
their own, because they say less than exact scores."""
