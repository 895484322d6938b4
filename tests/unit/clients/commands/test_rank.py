from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from adprior_client.cli.documents import read_forecast
from adprior_client.commands import rank
from adprior_runtime import contract
from adprior_runtime.errors import InvalidInputError
from support.client_calls import FORECAST, run_command
from support.fake_triton import ranking_tensors

if TYPE_CHECKING:
    from support.fake_triton import FakeTriton


CANDIDATES = [
    {"advertiser_id": 7, "base_logit": -2},
    {"advertiser_id": 4, "base_logit": -1.5, "creative": "ignored"},
    {"advertiser_id": 9, "base_logit": 0.5},
]


def _run(*options: str) -> int:
    return run_command(rank, *options)


def _write(path: Path, document: Any) -> str:
    path.write_text(json.dumps(document), encoding="utf-8")
    return str(path)


@pytest.fixture
def user(tmp_path: Path) -> str:
    return _write(tmp_path / "user.json", {"as_of": "2024-05-31"})


@pytest.fixture
def candidates(tmp_path: Path) -> str:
    return _write(tmp_path / "candidates.json", CANDIDATES)


@pytest.fixture
def forecast(tmp_path: Path) -> str:
    return _write(tmp_path / "forecast.json", FORECAST.to_json())


def test_json_has_the_keys_of_the_contract_in_the_order_asked(
    triton: FakeTriton, user: str, candidates: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("--url", triton.url, "--user", user, "--candidates", candidates, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == ["candidates", "bundle_id", "has_fitted_head"]
    assert printed["candidates"][2] == {
        "advertiser_id": 9,
        "base_logit": 0.5,
        "adjusted_logit": 0.5,
        "log_prob": None,
        "status": "not_in_catalogue",
    }
    assert [item["advertiser_id"] for item in printed["candidates"]] == [7, 4, 9]
    assert triton.calls[0][0] == contract.ADVERTISER_RANKING


@pytest.mark.parametrize(
    ("limit", "adjustment", "is_fitted"),
    [(0.0, 0.0, False), (2.0, 0.0, True), (2.0, 0.25, True)],
    ids=["never fitted", "fitted, nothing to add", "fitted"],
)
def test_a_missing_fitted_head_is_explained(
    triton: FakeTriton,
    user: str,
    candidates: str,
    capsys: pytest.CaptureFixture[str],
    limit: float,
    adjustment: float,
    is_fitted: bool,
) -> None:
    def answer(_model: str, asked: Any) -> Any:
        base = asked[contract.BASE_LOGITS]
        adjustments = np.where(np.arange(base.size) == 2, 0, adjustment).astype(np.float32)
        changed = {
            contract.ADJUSTMENTS: adjustments[None],
            contract.ADJUSTMENT_LIMIT: np.array([[limit]], dtype=np.float32),
        }
        return ranking_tensors(asked, **changed)

    triton.answer = answer
    options = ("--url", triton.url, "--user", user, "--candidates", candidates)
    assert _run(*options) == 0
    printed = capsys.readouterr()
    assert "no fitted head" not in printed.out
    if is_fitted:
        assert printed.err == ""
    else:
        assert "bundle-1 has no fitted head, so every adjustment is 0" in printed.err
        for command in ("adprior bench simulate-log", "adprior fit-head", "adprior build --bundle"):
            assert printed.err.count(command) == 1
    assert _run(*options, "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["has_fitted_head"] is is_fitted
    assert printed.err == ""


def test_with_a_forecast_only_the_head_is_asked(
    triton: FakeTriton, forecast: str, candidates: str
) -> None:
    assert _run("--url", triton.url, "--forecast", forecast, "--candidates", candidates) == 0
    assert triton.calls[0][0] == contract.PRIOR_HEAD


def test_a_printed_forecast_reads_back_equal(forecast: str) -> None:
    assert read_forecast(forecast) == FORECAST


def test_the_table_has_the_best_first(
    triton: FakeTriton, user: str, candidates: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("--url", triton.url, "--user", user, "--candidates", candidates) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["1", "9", "0.500", "+0.000", "0.500", "not", "in", "catalogue"]
    assert lines[2].split() == ["2", "4", "-1.500", "+0.250", "-1.250", "at", "most", "13.5", "%"]
    assert lines[3].split() == ["3", "7", "-2.000", "+0.250", "-1.750", "13.5", "%"]
    assert lines[5] == "Bundle: bundle-1"


def test_without_candidates_nothing_is_sent(
    user: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = _write(tmp_path / "candidates.json", [])
    assert _run("--url", "127.0.0.1:1", "--user", user, "--candidates", none, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "candidates": [],
        "bundle_id": "",
        "has_fitted_head": None,
    }


def test_candidates_may_come_from_standard_input(
    triton: FakeTriton, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO(json.dumps(CANDIDATES).encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw))
    assert _run("--url", triton.url, "--user", user, "--candidates", "-") == 0
    models = [model for model, _ in triton.calls]
    assert models == [contract.ADVERTISER_RANKING, contract.TOKENIZER]


@pytest.mark.parametrize("source", ["--user", "--forecast"])
def test_standard_input_serves_only_one_file(source: str) -> None:
    with pytest.raises(InvalidInputError, match="only one FILE can be -"):
        _run("--url", "127.0.0.1:1", source, "-", "--candidates", "-")


@pytest.mark.parametrize("sources", [(), ("--user", "u", "--forecast", "f")])
def test_exactly_one_of_user_and_forecast_is_needed(
    sources: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        _run("--url", "127.0.0.1:1", "--candidates", "c", *sources)
    assert caught.value.code == 2
    assert "--forecast" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, r"top level: found an object, expected a list of \{advertiser_id, base_logit\}"),
        ([7], r"\[0\]: found 7, expected an object with advertiser_id"),
        ([{"base_logit": 1}], r"\[0\]: advertiser_id is missing; keys found: 1"),
        ([{}], r"\[0\]: advertiser_id is missing; keys found: 0"),
        (
            [*CANDIDATES, {"advertiser_id": 1.5, "base_logit": 1}],
            r"\[3\]\.advertiser_id: found 1\.5, expected an integer",
        ),
        ([{"advertiser_id": True, "base_logit": 1}], "found a boolean, expected an integer"),
        ([{"advertiser_id": 2**63, "base_logit": 1}], "expected an integer of at most 64 bits"),
        ([{"advertiser_id": 1, "base_logit": "2"}], r"\[0\]\.base_logit: found a string"),
        ([{"advertiser_id": 1, "base_logit": None}], r"\[0\]\.base_logit: found null"),
        ([{"advertiser_id": 1, "base_logit": 10**60}], "expected a number within FP32"),
    ],
)
def test_wrong_candidates_are_located(
    user: str, tmp_path: Path, document: Any, message: str
) -> None:
    path = _write(tmp_path / "wrong.json", document)
    with pytest.raises(InvalidInputError, match=message) as caught:
        _run("--url", "127.0.0.1:1", "--user", user, "--candidates", path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("raw", ["1e999", "NaN", "-Infinity"])
def test_a_logit_that_is_not_finite_is_refused(user: str, tmp_path: Path, raw: str) -> None:
    path = tmp_path / "candidates.json"
    path.write_text(f'[{{"advertiser_id": 1, "base_logit": {raw}}}]', encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"within FP32|is not JSON"):
        _run("--url", "127.0.0.1:1", "--user", user, "--candidates", str(path))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"advertisers": {}}, "advertisers: found an object, expected a list"),
        ({"advertisers": [{"advertiser_id": 1}]}, r"advertisers\[0\]: name is missing"),
        (
            {"advertisers": [{"advertiser_id": 1, "name": "A", "log_prob": "-1"}]},
            r"advertisers\[0\]\.log_prob: found a string, expected a number",
        ),
        ({"exact": 1}, "exact: found 1, expected a boolean"),
        ({"missing_mass": 1.5}, r"missing_mass: found 1\.5, expected 0 to 1"),
        ({"bundle_id": None}, "bundle_id: found null, expected a string"),
    ],
)
def test_a_wrong_forecast_is_located(
    candidates: str, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    path = _write(tmp_path / "forecast.json", FORECAST.to_json() | changed)
    with pytest.raises(InvalidInputError, match=message):
        _run("--url", "127.0.0.1:1", "--forecast", path, "--candidates", candidates)
