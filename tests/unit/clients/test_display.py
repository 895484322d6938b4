from __future__ import annotations

import math
import sys

import pytest

from adprior_client.display import explain_empty
from adprior_client.results import Advertiser, Forecast
from adprior_client.types import Reason, Source
from support.processes import run

NAMES = ("Purina", "<b>KONG</b>", "Nori", "Moss")
FORECAST = Forecast(
    advertisers=tuple(
        Advertiser(advertiser_id=20 + n, name=name, log_prob=math.log(0.4 / 2**n))
        for n, name in enumerate(NAMES)
    ),
    exact=True,
    missing_mass=0.25,
    bundle_id="bundle-1",
    source=Source.LIVE,
)


def test_a_forecast_is_one_line_with_the_first_three() -> None:
    assert repr(FORECAST) == (
        "Forecast('Purina' 40.00%, '<b>KONG</b>' 20.00%, 'Nori' 10.00%, and 1 more; exact, all "
        "others at most 25.0%, live)"
    )


@pytest.mark.parametrize("reason", Reason)
def test_an_empty_forecast_says_why(reason: Reason) -> None:
    forecast = Forecast.none(reason)
    said = explain_empty(forecast)
    assert said.startswith(f"EMPTY, {reason}: ")
    assert repr(forecast) == f"Forecast({said})"
    assert f"EMPTY, {reason}" in forecast._repr_html_()
    with pytest.warns(UserWarning, match=f"forecast is EMPTY, {reason}: ") as caught:
        frame = forecast.to_pandas()
    assert caught[0].filename == __file__
    assert (len(frame), frame.attrs["reason"]) == (0, str(reason))
    is_failure = reason not in (Reason.KILL_SWITCH, Reason.CONTROL, Reason.SHADOW)
    assert ("fail_open=False" in said) == is_failure


def test_an_answer_without_advertisers_is_no_failure() -> None:
    forecast = Forecast(advertisers=(), exact=True, missing_mass=1.0, bundle_id="b")
    assert "the answer lists no advertiser" in repr(forecast)


def test_a_stored_forecast_says_why_it_is_not_live() -> None:
    stored = Forecast(
        advertisers=FORECAST.advertisers, exact=False, missing_mass=0.25, bundle_id="b",
        source=Source.STORED, reason=Reason.DEADLINE,
    )  # fmt: skip
    assert "not certified" in repr(stored)
    assert "stored, because deadline: no answer before the deadline" in repr(stored)


def test_a_notebook_shows_a_table() -> None:
    shown = FORECAST._repr_html_()
    assert shown.count("<tr>") == 1 + len(NAMES)
    assert "<td>&lt;b&gt;KONG&lt;/b&gt;</td><td>21</td><td>20.00%</td>" in shown


def test_a_frame_has_a_row_for_each_advertiser() -> None:
    frame = FORECAST.to_pandas()
    assert frame.columns.tolist() == ["advertiser_id", "name", "probability", "log_prob"]
    assert frame["name"].tolist() == list(NAMES)
    assert frame["probability"].tolist() == pytest.approx([0.4, 0.2, 0.1, 0.05])
    assert frame["advertiser_id"].dtype == "int64"
    assert frame.attrs == {
        "exact": True,
        "missing_mass": 0.25,
        "bundle_id": "bundle-1",
        "source": "live",
        "reason": None,
    }


def test_without_pandas_one_line_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "from adprior_client import Forecast\n"
        "from adprior_client.types import Reason\n"
        "Forecast.none(Reason.DEADLINE).to_pandas()\n"
    )
    done = run(sys.executable, "-c", code)
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: to_pandas needs the package pandas: pip install pandas"
    )
