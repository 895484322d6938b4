from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.contract import CandidateStatus
from adprior_runtime.errors import InvalidRequestError, ModelOutputError
from adprior_runtime.head.features import (
    FEATURE_NAMES,
    LOG_PROB_FLOOR,
    CandidatePriors,
    KnownForecast,
    candidate_priors,
    validate_head_request,
    validate_scores,
)

IDS = st.integers(min_value=-(2**63), max_value=2**63 - 1) | st.integers(0, 30)


@st.composite
def lookups(draw: st.DrawFn) -> dict[str, Any]:
    """Draw valid arguments of `candidate_priors`, including extreme ones."""
    catalogue = sorted(draw(st.sets(IDS, min_size=1, max_size=30)))
    known = st.sampled_from(catalogue)
    forecast = draw(st.lists(known | IDS, unique=True, max_size=10))
    log_prob = st.floats(max_value=2.0**-14, width=32, allow_nan=False) | st.floats(-5, 0, width=32)
    popularity = st.floats(-100, 0, width=32)
    count, size = len(forecast), len(catalogue)
    return {
        "forecast_ids": np.array(forecast, dtype=np.int64),
        "forecast_log_probs": np.array(
            draw(st.lists(log_prob, min_size=count, max_size=count)), dtype=np.float32
        ),
        "missing_mass": draw(st.floats(0, 1 + 1e-4)),
        "forecast_exact": draw(st.booleans()),
        "forecast_k": 10,
        "candidate_ids": np.array(draw(st.lists(known | IDS, max_size=20)), dtype=np.int64),
        "advertisers": _advertisers(
            catalogue,
            draw(st.lists(popularity, min_size=size, max_size=size)),
            draw(st.lists(st.integers(1, 3), min_size=size, max_size=size)),
        ),
    }


def _advertisers(
    ids: Sequence[int], log_popularity: npt.ArrayLike, path_counts: Sequence[int] | None = None
) -> Advertisers:
    counts = np.ones(len(ids)) if path_counts is None else path_counts
    return Advertisers(
        ids=np.array(ids, dtype=np.int64),
        log_popularity=np.asarray(log_popularity, dtype=np.float32),
        path_counts=np.asarray(counts, dtype=np.int32),
        name_bytes=np.zeros(0, dtype=np.uint8),
        name_offsets=np.zeros(len(ids) + 1, dtype=np.int64),
    )


def _forecast(arguments: dict[str, Any]) -> KnownForecast:
    return KnownForecast(
        advertiser_ids=arguments["forecast_ids"],
        log_probs=arguments["forecast_log_probs"],
        missing_mass=arguments["missing_mass"],
        exact=arguments.get("forecast_exact", False),
    )


def _look_up(arguments: dict[str, Any]) -> CandidatePriors:
    scores = {key: values for key, values in arguments.items() if key.startswith("scored")}
    names = ("candidate_ids", "advertisers", "forecast_k")
    return candidate_priors(_forecast(arguments), *(arguments[n] for n in names), **scores)


def _example(**changed: Any) -> CandidatePriors:
    arguments: dict[str, Any] = {
        "forecast_ids": np.array([30, 10]),
        "forecast_log_probs": np.log(np.array([0.5, 0.3], dtype=np.float32)),
        "missing_mass": 0.2,
        "forecast_exact": False,
        "forecast_k": 2,
        "candidate_ids": np.array([10, 20, 30, 99]),
        "advertisers": _advertisers([10, 20, 30], np.log([0.6, 0.3, 0.1])),
    }
    return _look_up(arguments | changed)


def _scored(log_probs: Sequence[float]) -> dict[str, Any]:
    scored = np.array(log_probs, dtype=np.float32)
    return {"scored_log_probs": scored, "scored_exact": np.ones(len(scored), dtype=np.bool_)}


def _validate(**changed: Any) -> None:
    arguments: dict[str, Any] = {
        "forecast_ids": np.array([1, 2]),
        "forecast_log_probs": np.array([-1.0, -2.0], dtype=np.float32),
        "missing_mass": 0.5,
        "candidate_ids": np.array([5, 5, 6]),
        "base_logits": np.zeros(3, dtype=np.float32),
    }
    arguments |= changed
    validate_head_request(
        _forecast(arguments), arguments["candidate_ids"], arguments["base_logits"]
    )


def test_a_worked_example() -> None:
    priors = _example()
    entropy = -sum(p * math.log(p) for p in (0.5, 0.3, 0.2))
    expected: list[list[float]] = [
        [math.log(0.3), math.log(0.3 / 0.6), 1, 1 / 2, entropy, 0.2],
        [math.log(0.2), math.log(0.2 / 0.3), 0, 0, entropy, 0.2],
        [math.log(0.5), math.log(0.5 / 0.1), 1, 1, entropy, 0.2],
        [0, 0, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(priors.features, expected, rtol=1e-5)
    np.testing.assert_allclose(priors.log_probs[:3], np.log([0.3, 0.2, 0.5]), rtol=1e-6)
    assert priors.log_probs[3] == LOG_PROB_FLOOR
    assert priors.statuses.tolist() == [0, 1, 0, 2]
    assert priors.has_forecast


def test_a_missing_mass_of_0_bounds_by_the_floor() -> None:
    priors = _example(missing_mass=0.0)
    assert priors.log_probs[1] == LOG_PROB_FLOOR


def test_a_forecast_advertiser_that_left_the_catalogue_is_off_it() -> None:
    priors = _example(advertisers=_advertisers([10, 20, 40], np.log([0.6, 0.3, 0.1])))
    assert priors.statuses.tolist() == [0, 1, 2, 2]


def test_a_certain_forecast_has_no_entropy() -> None:
    priors = _example(
        forecast_ids=np.array([10]), forecast_log_probs=np.zeros(1, np.float32), missing_mass=0.0
    )
    assert priors.features[0, FEATURE_NAMES.index("forecast_entropy")] == 0


def test_a_longer_forecast_is_cut_to_the_bundles_number() -> None:
    longer = _example(
        forecast_ids=np.array([30, 20, 10]),
        forecast_log_probs=np.log(np.array([0.5, 0.1, 0.3], dtype=np.float32)),
        missing_mass=0.1,
    )
    np.testing.assert_allclose(longer.features, _example().features, rtol=1e-5)
    assert longer.statuses.tolist() == _example().statuses.tolist()


def test_a_missing_name_may_add_probability_to_a_shown_advertiser() -> None:
    aliased = _advertisers([10, 20, 30], np.log([0.6, 0.3, 0.1]), [1, 1, 2])
    priors = _example(advertisers=aliased)
    assert priors.statuses.tolist() == [0, 1, 1, 2]
    assert math.isclose(priors.log_probs[2], math.log(0.5 + 0.2), rel_tol=1e-5)
    certified = _example(advertisers=aliased, forecast_exact=True)
    assert certified.statuses.tolist() == [0, 1, 0, 2]


def test_an_empty_forecast_is_marked() -> None:
    nothing = {"forecast_ids": np.array([], np.int64), "forecast_log_probs": np.zeros(0, "f4")}
    priors = _example(**nothing, missing_mass=1.0)
    assert not priors.has_forecast
    assert priors.statuses.tolist() == [1, 1, 1, 2]
    assert priors.log_probs[:3].tolist() == [0, 0, 0]


@given(lookups())
def test_types_and_finite_features(arguments: dict[str, Any]) -> None:
    priors = _look_up(arguments)
    count = len(arguments["candidate_ids"])
    assert priors.features.shape == (count, len(FEATURE_NAMES))
    assert np.isfinite(priors.features).all()
    assert (priors.log_probs <= 0).all()
    arrays = (priors.log_probs, priors.statuses, priors.features)
    assert [array.dtype.name for array in arrays] == ["float32", "uint8", "float32"]


@given(lookups())
def test_statuses_follow_from_membership(arguments: dict[str, Any]) -> None:
    priors = _look_up(arguments)
    forecast = dict(
        zip(arguments["forecast_ids"].tolist(), arguments["forecast_log_probs"], strict=True)
    )
    advertisers = arguments["advertisers"]
    paths = dict(zip(advertisers.ids.tolist(), advertisers.path_counts.tolist(), strict=True))
    mass = min(arguments["missing_mass"], 1)
    for index, candidate in enumerate(arguments["candidate_ids"].tolist()):
        status, log_prob = priors.statuses[index], priors.log_probs[index]
        if candidate not in paths:
            assert status == CandidateStatus.NOT_IN_CATALOGUE
            assert not priors.features[index].any()
            assert log_prob == LOG_PROB_FLOOR
        elif candidate in forecast and (paths[candidate] == 1 or arguments["forecast_exact"]):
            assert status == CandidateStatus.EXACT
            assert log_prob == min(forecast[candidate], 0)
        else:
            assert status == CandidateStatus.UPPER_BOUND
            shown = math.exp(min(forecast.get(candidate, -math.inf), 0))
            assert math.exp(log_prob) >= min(shown + mass, 1) * (1 - 1e-5)


@given(lookups(), st.randoms(use_true_random=False))
def test_a_candidates_lookup_does_not_depend_on_the_others(
    arguments: dict[str, Any], random: Any
) -> None:
    priors = _look_up(arguments)
    order = list(range(len(arguments["candidate_ids"])))
    random.shuffle(order)
    chosen = order[: len(order) // 2]
    fewer = {"candidate_ids": arguments["candidate_ids"][chosen]}
    part = _look_up(arguments | fewer)
    assert (part.features == priors.features[chosen]).all()
    assert (part.statuses == priors.statuses[chosen]).all()


@given(lookups())
def test_ranks_do_not_depend_on_the_order_sent(arguments: dict[str, Any]) -> None:
    distinct = -0.5 * np.arange(len(arguments["forecast_ids"]), dtype=np.float32)
    arguments = arguments | {"forecast_log_probs": distinct}
    reversed_ = {
        "forecast_ids": arguments["forecast_ids"][::-1],
        "forecast_log_probs": distinct[::-1],
    }
    np.testing.assert_allclose(
        _look_up(arguments).features,
        _look_up(arguments | reversed_).features,
        rtol=1e-6,
    )


@given(lookups())
def test_the_drawn_requests_are_valid(arguments: dict[str, Any]) -> None:
    logits = np.zeros(len(arguments["candidate_ids"]), dtype=np.float32)
    validate_head_request(_forecast(arguments), arguments["candidate_ids"], logits)


def test_a_score_of_minus_infinity_is_valid() -> None:
    validate_scores(np.arange(3), **_scored([-np.inf, -918.67, 0.0]))


def test_empty_requests_are_valid() -> None:
    none = np.array([], dtype=np.int64)
    _validate(forecast_ids=none, forecast_log_probs=none.astype("f4"))
    _validate(candidate_ids=none, base_logits=none.astype("f4"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"forecast_log_probs": np.zeros(3, "f4")}, r"LOG_PROBS: found shape \(3,\)"),
        ({"forecast_ids": np.array([[1, 2]])}, r"ADVERTISER_IDS: found shape \(1, 2\)"),
        ({"base_logits": np.zeros(2, "f4")}, r"BASE_LOGITS: found shape \(2,\), expected \(3,\)"),
        ({"forecast_ids": np.array([7, 7])}, "ADVERTISER_IDS: found 7 2 times"),
        ({"forecast_log_probs": np.array([-1, np.nan], "f4")}, r"LOG_PROBS\[1\]: found nan"),
        ({"forecast_log_probs": np.array([0.01, -1], "f4")}, r"LOG_PROBS\[0\]: found 0.01"),
        ({"missing_mass": 1.001}, "MISSING_MASS: found 1.001"),
        ({"missing_mass": -0.1}, "MISSING_MASS"),
        ({"missing_mass": math.nan}, "MISSING_MASS: found nan"),
        ({"base_logits": np.array([0, np.nan, 0], "f4")}, r"BASE_LOGITS\[1\]: found nan"),
        ({"base_logits": np.array([0, 0, -np.inf], "f4")}, r"BASE_LOGITS\[2\]: found -inf"),
    ],
)
def test_a_bad_request_is_refused_by_name(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        _validate(**changed)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (_scored([-1, -2]), r"scored_log_probs: found shape \(2,\), expected \(3,\)"),
        (_scored([-1, np.nan, 0]), r"scored_log_probs\[1\]: found nan, expected at most 0"),
        (_scored([-1, -2, np.inf]), r"scored_log_probs\[2\]: found inf"),
        (_scored([0.01, -2, -np.inf]), r"scored_log_probs\[0\]: found 0\.01"),
        (
            {"scored_log_probs": None, "scored_exact": np.ones(3, np.bool_)},
            "scored_log_probs: missing beside scored_exact, expected both or neither",
        ),
        (
            {"scored_log_probs": np.zeros(3, "f4"), "scored_exact": None},
            "scored_exact: missing beside scored_log_probs",
        ),
    ],
)
def test_bad_scores_are_the_engines_fault(scores: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelOutputError, match=message):
        validate_scores(np.arange(3), **scores)


def test_exact_scores_of_the_engine_replace_bounds() -> None:
    scored = np.log(np.array([0.3, 0.05, 0.5, 1.0], dtype=np.float32))
    priors = _example(scored_log_probs=scored, scored_exact=np.array([True, True, True, False]))
    assert priors.statuses.tolist() == [0, 0, 0, 2]
    np.testing.assert_allclose(priors.log_probs[:3], scored[:3], rtol=1e-6)
    assert priors.features[1, FEATURE_NAMES.index("is_exact")] == 1
    assert priors.features[1, FEATURE_NAMES.index("inverse_rank")] == 0
    assert priors.log_probs[3] == LOG_PROB_FLOOR


@pytest.mark.parametrize(("bound", "expected"), [(0.05, 0.05), (0.9, 0.2)])
def test_the_closer_bound_is_used(bound: float, expected: float) -> None:
    scored = np.full(4, math.log(bound), dtype=np.float32)
    priors = _example(scored_log_probs=scored, scored_exact=np.zeros(4, dtype=np.bool_))
    assert priors.statuses.tolist() == [0, 1, 0, 2]
    assert math.isclose(priors.log_probs[1], math.log(expected), rel_tol=1e-5)
