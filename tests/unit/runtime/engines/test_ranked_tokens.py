from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_runtime.engines import ranked_tokens
from adprior_runtime.engines.ranked_tokens import MOST_RANKED, RankedTokens


def _random(count: int) -> npt.NDArray[np.float32]:
    logits = np.random.default_rng(0).normal(size=count) * 4
    return np.asarray(logits - np.logaddexp.reduce(logits), dtype=np.float32)


@pytest.mark.parametrize("asked", [0, 1, 4 * MOST_RANKED])
def test_a_few_tokens_are_all_held(asked: int) -> None:
    log_probs = _random(asked)
    ranked = RankedTokens.of(log_probs)
    assert ranked.asked == asked
    assert ranked.places.tolist() == [*range(asked)]
    np.testing.assert_array_equal(ranked.log_probs, log_probs)
    np.testing.assert_array_equal(ranked.read_all(), log_probs)
    assert ranked.others_log_mass == -np.inf


@pytest.mark.parametrize("order", ["random", "rising", "falling"])
@pytest.mark.parametrize("asked", [4 * MOST_RANKED + 1, 5000, 5887])
def test_of_many_tokens_the_most_probable_are_held(order: str, asked: int) -> None:
    log_probs = _random(asked)
    if order != "random":
        log_probs = np.sort(log_probs)[:: 1 if order == "rising" else -1]
    ranked = RankedTokens.of(log_probs)
    held = len(ranked.places)
    assert MOST_RANKED <= held < 3 * MOST_RANKED
    best = np.sort(np.argsort(-log_probs, kind="stable")[:held])
    np.testing.assert_array_equal(ranked.places, best)
    np.testing.assert_array_equal(ranked.log_probs, log_probs[best])
    np.testing.assert_array_equal(ranked.read_all(), log_probs)
    others = np.delete(log_probs.astype(np.float64), best)
    assert ranked.others_log_mass == pytest.approx(np.logaddexp.reduce(others), rel=1e-14)


_VALUES = st.sampled_from([-1.0, -1.5, -2.0, -800.0, -np.inf, np.inf, np.nan])


@given(st.lists(_VALUES, min_size=1, max_size=40), st.integers(1, 9))
def test_nan_counts_as_the_largest_and_no_other_token_is_more_probable_than_a_held_one(
    values: list[float], most: int
) -> None:
    log_probs = np.array(values, dtype=np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranked_tokens, "MOST_RANKED", most)
        ranked = RankedTokens.of(log_probs)
    assert len(ranked.places) >= min(most, len(values))
    assert (np.diff(ranked.places) > 0).all()
    np.testing.assert_array_equal(ranked.log_probs, log_probs[ranked.places])
    keys = np.where(np.isnan(log_probs), np.inf, log_probs)
    others = np.delete(keys, ranked.places)
    assert others.max(initial=-np.inf) <= keys[ranked.places].min()
    expected = np.logaddexp.reduce(others, initial=-np.inf, dtype=np.float64)
    assert ranked.others_log_mass == pytest.approx(expected, rel=1e-12)
