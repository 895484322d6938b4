"""Head variants: what each lets g look at, and how it is fitted.

Every one minimises the log-loss of sigmoid(offset + g(x)) on the same rows; none sees the ranker's
logit, so that z' = z + g(x) rises with z.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from adprior_build.head.kinds import BasisHead, MlpHead
from adprior_build.head.logistic_fit import fit_logistic
from adprior_build.head.onnx_head import Head, LogisticHead
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.head.features import FEATURE_NAMES

_Float32Array = npt.NDArray[np.float32]
_Float64Array = npt.NDArray[np.float64]

_OVER_POPULARITY: Final = FEATURE_NAMES.index("log_prob_minus_popularity")
_IS_EXACT: Final = FEATURE_NAMES.index("is_exact")
_BENT: Final = ("log_prob", "log_prob_minus_popularity", "inverse_rank")
"""What varies from candidate to candidate."""
_QUANTILES: Final = (0.2, 0.4, 0.6, 0.8, 0.95)
_HIDDEN: Final = 8
_SEED: Final = 5
_STEPS: Final = 200


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
        name: Which.
        features: [m, features], columns as in `FEATURE_NAMES`.
        offsets: [m], the ranker's logits, with coefficient 1.
        labels: [m], 0 or 1, some of each.
        l2: Penalty on the squared weights of standardised features, at least 0.
        clamp: The most that a logit moves; the fit does not see it.

    Raises:
        InvalidInputError: No such variant, or the fit does not converge.
    """
    if name not in VARIANTS:
        raise InvalidInputError(f"head variant {name}: expected one of {', '.join(VARIANTS)}")
    wide = features.astype(np.float64)
    mean, deviation = wide.mean(axis=0), wide.std(axis=0)
    scale = np.where(deviation > 1e-6, deviation, 1.0)
    scales: dict[str, Any] = {"mean": mean, "scale": scale, "clamp": clamp}
    rows = _Rows(standardised=(wide - mean) / scale, offsets=offsets, labels=labels, l2=l2)
    return VARIANTS[name](rows, scales)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """What is fitted, the features standardised."""

    standardised: _Float64Array
    offsets: _Float64Array
    labels: _Float64Array
    l2: float


_Scales: TypeAlias = dict[str, Any]
"""``mean``, ``scale`` and ``clamp``, as every head takes them."""


def _fit_logistic(rows: _Rows, scales: _Scales) -> Head:
    weights, bias = fit_logistic(rows.standardised, rows.offsets, rows.labels, rows.l2)
    return LogisticHead(weights=weights, bias=bias, **scales)


def _fit_without_popularity(rows: _Rows, scales: _Scales) -> Head:
    rows.standardised[:, _OVER_POPULARITY] = 0.0  # its weight is 0 then, exactly
    return _fit_logistic(rows, scales)


def _fit_hinges(rows: _Rows, scales: _Scales) -> Head:
    places = [
        (column, knot)
        for column in map(FEATURE_NAMES.index, _BENT)
        for knot in np.unique(np.quantile(rows.standardised[:, column], _QUANTILES)).tolist()
    ]
    columns, knots = zip(*places, strict=True)
    gated = [(_IS_EXACT, column) for column in range(len(FEATURE_NAMES)) if column != _IS_EXACT]
    return _fit_basis(rows, scales, columns, knots, gated)


def _fit_products(rows: _Rows, scales: _Scales) -> Head:
    return _fit_basis(rows, scales, [], [], list(combinations(range(len(FEATURE_NAMES)), 2)))


def _fit_basis(
    rows: _Rows,
    scales: _Scales,
    columns: Sequence[int],
    knots: Sequence[float],
    products: Sequence[tuple[int, int]],
) -> Head:
    blank = BasisHead(
        weights=np.zeros(len(FEATURE_NAMES) + len(knots) + len(products)),
        bias=0.0,
        hinge_columns=np.array(columns, dtype=np.int64),
        knots=np.array(knots, dtype=np.float64),
        products=np.array(products, dtype=np.int64).reshape(-1, 2),
        **scales,
    )
    basis = blank.expand_standardised(rows.standardised)
    weights, bias = fit_logistic(basis, rows.offsets, rows.labels, rows.l2)
    return replace(blank, weights=weights, bias=bias)


def _fit_mlp(rows: _Rows, scales: _Scales) -> Head:
    import torch  # noqa: PLC0415  the other variants need no more than NumPy

    random = np.random.default_rng(_SEED)
    features = rows.standardised.shape[1]
    starts = (
        random.normal(0, 1 / np.sqrt(features), (features, _HIDDEN)),
        random.normal(0, 0.5, _HIDDEN),
        np.zeros(_HIDDEN),
        np.zeros(features),
        np.zeros(1),
    )
    layers = [torch.tensor(start, dtype=torch.float64, requires_grad=True) for start in starts]
    inner, inner_bias, weights, direct, bias = layers
    x, z, y = (torch.from_numpy(part) for part in (rows.standardised, rows.offsets, rows.labels))
    rate = float(rows.labels.mean())
    optimiser = torch.optim.LBFGS(
        layers, max_iter=_STEPS, line_search_fn="strong_wolfe", tolerance_change=1e-9
    )

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        hidden = torch.nn.functional.softsign(x @ inner + inner_bias)
        increments = hidden @ weights + x @ direct + bias
        losses = torch.nn.functional.binary_cross_entropy_with_logits(z + increments, y)
        penalty = 0.5 * rows.l2 * ((inner**2).sum() + (weights**2).sum() + (direct**2).sum())
        # In units of the labels' own uncertainty, so that rare labels converge as common ones do.
        value = (losses + penalty / len(y)) / (rate * (1 - rate))
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    found = [part.detach().numpy() for part in layers]
    return MlpHead(
        inner=found[0],
        inner_bias=found[1],
        weights=found[2],
        direct=found[3],
        bias=float(found[4][0]),
        **scales,
    )


VARIANTS: Final[Mapping[str, Callable[[_Rows, _Scales], Head]]] = {
    "logistic": _fit_logistic,
    "without-popularity": _fit_without_popularity,
    "hinges": _fit_hinges,
    "products": _fit_products,
    "mlp": _fit_mlp,
}
"""``logistic``: all six features; ``without-popularity``: without l - pi; ``hinges``: bent along l,
l - pi and 1/rank, since far down the list a step in l means little, and with slopes of their own
for bounds, which say less than scores; ``products``: features in
pairs, so that an unsure forecast may count less; ``mlp``: a hidden layer of 8 beside ``logistic``;
it alone needs torch."""
