from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adprior_runtime.bundle import Bundle
from adprior_runtime.catalogue.first_tokens import FirstTokens
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.forecast.search_step import SearchStep
from adprior_runtime.prompt.context import parse_context
from support.paths import DEMO


def test_a_catalogue_is_bounded_in_parts_and_new_advertisers_are_found(
    monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path
) -> None:
    forecaster = Forecaster(tiny_bundle, threads=1)
    prompt = forecaster.prompt_ids((DEMO / "users" / "new_parent.json").read_bytes())
    shown, nobody = forecaster.forecast_prompt(prompt, None), np.zeros(0, dtype=np.int64)
    whole = forecaster.forecast_catalogue(
        prompt, known_ids=shown.advertiser_ids, new_k=5, excluded_ids=nobody
    )
    monkeypatch.setattr("adprior_runtime.forecast.search_step._BOUNDED_ROWS", 100)
    parts = forecaster.forecast_catalogue(
        prompt, known_ids=shown.advertiser_ids, new_k=5, excluded_ids=nobody
    )
    np.testing.assert_array_equal(parts.log_probs, whole.log_probs)
    assert len(whole.log_probs) == len(forecaster.advertisers.ids) > 4 * 100
    first = forecaster.forecast_prompt(prompt, len(shown.names) + 5)
    rows = forecaster.advertisers.rows_of(first.advertiser_ids)
    assert (whole.exact, whole.new_exact) == (True, True)
    assert whole.resolved[rows].all()
    np.testing.assert_allclose(whole.log_probs[rows], first.log_probs, rtol=1e-5)
    rest = np.exp(whole.log_probs[~whole.resolved])
    assert rest.max() <= whole.unresolved_mass < 1
    others = forecaster.forecast_catalogue(
        prompt, known_ids=nobody, new_k=5, excluded_ids=shown.advertiser_ids
    )
    np.testing.assert_allclose(others.log_probs[rows[-5:]], first.log_probs[-5:], rtol=1e-5)


@pytest.mark.parametrize(("top_k", "beam_width", "width"), [(5, None, 32), (40, 7, 40)])
def test_the_engine_is_told_the_width_of_the_search(
    tiny_bundle: Path, top_k: int, beam_width: int | None, width: int
) -> None:
    told: list[tuple[FirstTokens, int]] = []

    class Told(OnnxEngine):
        def prefill(self, prompt_ids: Any, next_tokens: Any, first_step: Any = None) -> Any:
            if first_step is not None:
                assert next_tokens.tolist() == first_step.tokens.token_ids.tolist()
                told.append(first_step)
            return super().prefill(prompt_ids, next_tokens, first_step)

    bundle = Bundle.open(tiny_bundle)
    step = SearchStep(bundle, threads=1)
    step._engine = Told.of_bundle(bundle, threads=1)
    for _ in range(2):
        step.run([3, 4, 5], top_k=top_k, beam_width=beam_width)
    step.warm_up()
    assert [each[1] for each in told] == [width, width, 32]
    assert len({id(each[0]) for each in told}) == 1


def test_the_demos_users_have_certified_forecasts(tiny_bundle: Path) -> None:
    """The rounding margin does not change them."""
    forecaster = Forecaster(tiny_bundle, threads=1)
    for user in sorted((DEMO / "users").glob("*.json")):
        assert forecaster.forecast(parse_context(user.read_bytes())).exact
