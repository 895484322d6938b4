from __future__ import annotations

from dataclasses import replace

import pytest

from adprior_runtime.bundle import Manifest
from adprior_runtime.contract import MAX_TOP_K
from adprior_runtime.errors import InvalidRequestError
from adprior_runtime.search.limits import SearchLimits

OWN = Manifest(bundle_id="", forecast_k=20, max_top_k=50)


@pytest.mark.parametrize(
    ("forecast_k", "names", "expected"),
    [
        (20, 1_000_000, 50),
        (20, 51, 50),
        (20, 50, MAX_TOP_K),  # they cost no more, whatever is asked for
        (80, 1_000_000, 80),
    ],
)
def test_the_bundle_sets_the_largest_top_k(forecast_k: int, names: int, expected: int) -> None:
    assert SearchLimits.of(replace(OWN, forecast_k=forecast_k), names).max_top_k == expected


def test_a_beam_may_be_as_wide_as_the_bundles_own() -> None:
    limits = SearchLimits.of(replace(OWN, beam_width=64), names=1000)
    assert limits.beam_width(64) == 64
    with pytest.raises(InvalidRequestError, match="beam_width: found 65, expected 1 to 64"):
        limits.beam_width(65)


def test_top_k_defaults_to_the_bundles_number() -> None:
    limits = SearchLimits.of(OWN, names=1000)
    assert limits.top_k(None) == 20
    with pytest.raises(InvalidRequestError, match=r"TOP_K: found 51, .* the bundle's max_top_k"):
        limits.top_k(51)
