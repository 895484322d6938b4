from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from adprior_bench.commands.drift import MIN_BIN_SHARE, SHARES_WITHOUT_HISTORY
from adprior_bench.data.cases import read_test_cases
from adprior_runtime.cli import main
from adprior_runtime.forecast.drift import PopularityBins, stability_index
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.prompt.context import UserContext
from support.small_checkpoint import SmallData, invented_events


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SmallData:
    return SmallData.write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def bundle(data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data.save_bundle(tmp_path_factory.mktemp("built"))


def run(data: SmallData, bundle: Path, *options: str) -> int:
    return main(["bench", "drift", "--bundle", str(bundle), *data.log_options(), *options])


def measured(
    data: SmallData, bundle: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> dict[float, dict[str, float]]:
    assert run(data, bundle, "--json", *options) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["rows"]
    return {row["share_without_history"]: row for row in rows}


def test_more_forecasts_vary_less_by_chance(
    data: SmallData, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = measured(data, bundle, capsys, "--forecasts", "10", "--draws", "200")
    many = measured(data, bundle, capsys, "--forecasts", "1000", "--draws", "200")
    assert list(few) == list(SHARES_WITHOUT_HISTORY)
    assert all(row["p1"] <= row["median"] <= row["p99"] for row in few.values())
    assert 0 < many[0.0]["p99"] < few[0.0]["p99"] / 10  # it falls as one over their number


def test_the_index_without_history_is_that_of_the_means(
    data: SmallData, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forecaster = Forecaster(bundle)
    bins = PopularityBins(forecaster.advertisers.log_popularity)

    def mean_split(cases: list[UserContext], **changes: Any) -> npt.NDArray[np.float64]:
        splits = []
        for case in cases:
            forecast = forecaster.forecast(dataclasses.replace(case, **changes))
            rows = forecaster.advertisers.rows_of(forecast.advertiser_ids)
            splits.append(bins.split(rows, forecast.log_probs))
        mean: npt.NDArray[np.float64] = np.maximum(np.mean(splits, axis=0), MIN_BIN_SHARE)
        return mean

    files = [data.path(name) for name in ("events.parquet", "profiles.parquet", "columns.toml")]
    cases = read_test_cases(forecaster.bundle, *files)
    expected = stability_index(mean_split(cases, history=()), mean_split(cases))
    options = ["--requests", "100000", "--forecasts", "20000", "--draws", "50"]
    found = measured(data, bundle, capsys, *options)
    assert found[1.0]["median"] == pytest.approx(expected, rel=0.1)
    assert found[0.0]["p99"] < expected < 10


def test_the_default_output_is_a_table(
    data: SmallData, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, bundle, "--requests", "5", "--forecasts", "50", "--draws", "20") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "20 draws of 50 forecasts against those of 5 days of test users" in lines[0]
    assert [line.split()[0] for line in lines[-5:]] == ["0%", "10%", "25%", "50%", "100%"]


def test_another_log_is_refused_unless_accepted(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = SmallData.write(tmp_path)
    other.write_events([row for row in invented_events() if row["who"] != "user-0"])
    options = ["--requests", "5", "--forecasts", "50", "--draws", "20"]
    assert run(other, bundle, *options) == 2
    assert "not the log that bundle" in capsys.readouterr().err
    assert run(other, bundle, *options, "--other-log") == 0
    assert "not the log that bundle" in capsys.readouterr().out.splitlines()[1]


def test_a_log_without_later_days_of_test_users_is_refused_in_one_line(
    data: SmallData, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "events.csv"
    empty.write_text("who,day,brand\na,2001-01-01,Acme\n")
    options = ["--columns", str(data.path("columns.toml")), "--events", str(empty), "--other-log"]
    assert main(["bench", "drift", "--bundle", str(bundle), *options]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"{empty}: " in message
