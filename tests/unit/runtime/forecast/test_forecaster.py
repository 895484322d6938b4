from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.prompt.context import parse_context
from support.paths import DEMO


def test_a_whole_catalogue_is_bounded_in_parts(
    monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path
) -> None:
    forecaster = Forecaster(tiny_bundle, threads=1)
    context = parse_context((DEMO / "users" / "new_parent.json").read_bytes())
    whole, bounds = forecaster.bounds(context)
    monkeypatch.setattr("adprior_runtime.forecast.search_step._BOUNDED_ROWS", 100)
    parts, found = forecaster.bounds(context)
    np.testing.assert_array_equal(found, bounds)
    assert parts.advertiser_ids.tolist() == whole.advertiser_ids.tolist()
    assert len(bounds) == len(forecaster.advertisers.ids) > 4 * 100
    rows = forecaster.advertisers.rows_of(whole.advertiser_ids)
    np.testing.assert_allclose(bounds[rows], whole.log_probs, rtol=1e-6)


def test_the_demos_users_have_certified_forecasts(tiny_bundle: Path) -> None:
    """The rounding margin does not change them."""
    forecaster = Forecaster(tiny_bundle, threads=1)
    for user in sorted((DEMO / "users").glob("*.json")):
        assert forecaster.forecast(parse_context(user.read_bytes())).exact
