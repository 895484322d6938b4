from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from adprior_build.data.split import Split
from adprior_build.head.ranking_log import COLUMNS, ORIGIN_KEY, read_ranking_log
from adprior_runtime.bundle import Bundle
from adprior_runtime.cli import main
from adprior_runtime.forecast.forecaster import Forecaster
from support.small_checkpoint import CUT, IDS, NAMES, SmallData, invented_events

INTERRUPTED = 130
Columns = dict[str, list[Any]]
Simulate = Callable[..., Columns]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SmallData:
    return SmallData.write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def bundle(data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data.save_bundle(tmp_path_factory.mktemp("built"))


def run(data: SmallData, bundle: Path, output: Path, *options: str) -> int:
    arguments = ["bench", "simulate-log", "--bundle", str(bundle), "--output", str(output)]
    return main([*arguments, *data.log_options(), *options])


@pytest.fixture
def simulate(data: SmallData, bundle: Path, tmp_path: Path) -> Simulate:
    """Simulate a log; return its columns."""

    def call(*options: str) -> Columns:
        assert run(data, bundle, tmp_path / "log.parquet", *options) == 0
        return read(tmp_path / "log.parquet")

    return call


@pytest.fixture(scope="module")
def log(data: SmallData, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with the default options."""
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    assert run(data, bundle, path) == 0
    return path


@pytest.fixture(scope="module")
def columns(log: Path) -> Columns:
    return read(log)


def read(path: Path) -> Columns:
    found: Columns = pyarrow.parquet.read_table(path).to_pydict()
    return found


def by_request(columns: Columns, forecast: str = "live") -> list[list[dict[str, Any]]]:
    rows = [
        row
        for values in zip(*columns.values(), strict=True)
        if (row := dict(zip(columns, values, strict=True)))["forecast"] == forecast
    ]
    return [
        [row for row in rows if row["request"] == request]
        for request in sorted(set(columns["request"]))
    ]


def days_of_validation_users() -> list[tuple[str, Any, int]]:
    """Return user, day and advertiser of each of their days from the cut on."""
    tested, held_out = Split(test_share=0.4), Split(test_share=0.05, salt="validation")
    return [
        (row["who"], row["day"], IDS[NAMES.index(row["brand"])])
        for row in invented_events()
        if row["day"] >= CUT
        and held_out.is_test_user(row["who"])
        and not tested.is_test_user(row["who"])
    ]


def test_requests_are_later_days_of_validation_users(columns: Columns) -> None:
    requests = by_request(columns)
    bought = [[row["advertiser_id"] for row in rows if row["label"]] for rows in requests]
    assert bought == [[advertiser] for _, _, advertiser in sorted(days_of_validation_users())]


@pytest.mark.parametrize(("wanted", "found"), [("4", 4), ("500", len(IDS))])
def test_candidates_are_distinct_advertisers_of_the_catalogue(
    simulate: Simulate, wanted: str, found: int
) -> None:
    for rows in by_request(simulate("--candidates", wanted)):
        candidates = {row["advertiser_id"] for row in rows}
        assert len(rows) == len(candidates) == found
        assert candidates <= set(IDS)
        assert {row["label"] for row in rows} == {0, 1}


def test_limited_requests_are_drawn_from_all(simulate: Simulate) -> None:
    columns = simulate("--candidates", "2", "--requests", "3")
    assert len(by_request(columns)) == 3
    assert sum(row["label"] for rows in by_request(columns) for row in rows) == 3
    everything = by_request(simulate("--candidates", "2"))
    assert all(rows in everything for rows in by_request(columns))


def test_fit_head_reads_the_log(log: Path, columns: Columns, bundle: Path, tmp_path: Path) -> None:
    assert set(columns) == {*COLUMNS, "exact", "bundle_id", "forecast", "log_prob", "status"}
    rows = read_ranking_log(log, Bundle.open(bundle))
    assert len(rows.labels) == len(columns["label"])
    output = ["--output", str(tmp_path / "head.onnx"), "--bundle", str(bundle)]
    assert main(["fit-head", "--logs", str(log), *output]) == 0


def test_every_row_of_a_request_has_its_forecast(columns: Columns, bundle: Path) -> None:
    for rows in by_request(columns):
        for name in ("forecast_advertiser_ids", "forecast_log_probs", "missing_mass", "exact"):
            assert all(row[name] == rows[0][name] for row in rows)
        shown = rows[0]["forecast_log_probs"]
        assert len(rows[0]["forecast_advertiser_ids"]) == len(shown) == 3
        assert sum(np.exp(shown)) + rows[0]["missing_mass"] <= 1 + 1e-5
        assert rows[0]["bundle_id"] == Bundle.open(bundle).manifest.bundle_id


def test_live_rows_have_exact_scores(columns: Columns) -> None:
    for rows in by_request(columns):
        assert {row["status"] for row in rows} == {"exact"}
        shown = dict(
            zip(rows[0]["forecast_advertiser_ids"], rows[0]["forecast_log_probs"], strict=True)
        )
        found = {row["advertiser_id"]: row["log_prob"] for row in rows}
        assert {key: found[key] for key in shown} == pytest.approx(shown, abs=1e-4)
        hidden = sum(np.exp(value) for key, value in found.items() if key not in shown)
        assert hidden == pytest.approx(rows[0]["missing_mass"], abs=1e-4)


def test_each_request_is_repeated_with_a_stored_forecast(columns: Columns) -> None:
    for live, stored in zip(by_request(columns), by_request(columns, "stored"), strict=True):
        same = [{**row, **dict.fromkeys(("forecast", "log_prob", "status"))} for row in live]
        assert same == [
            {**row, **dict.fromkeys(("forecast", "log_prob", "status"))} for row in stored
        ]
        shown = dict(
            zip(live[0]["forecast_advertiser_ids"], live[0]["forecast_log_probs"], strict=True)
        )
        for row in stored:
            bound = np.log(row["missing_mass"])
            expected = shown.get(row["advertiser_id"], bound)
            assert row["log_prob"] == pytest.approx(expected, abs=1e-5)
            assert row["status"] == ("exact" if row["advertiser_id"] in shown else "upper_bound")


def test_the_base_ranker_prefers_frequent_advertisers(columns: Columns) -> None:
    logits = np.array(columns["base_logit"])
    assert np.isfinite(logits).all()
    # Half of all events are of the first advertiser, which makes it the likeliest of any request.
    first = np.array(columns["advertiser_id"]) == IDS[0]
    assert logits[first].min() > logits[~first].mean()


def test_base_logits_need_no_recalibration(columns: Columns) -> None:
    labels = np.array(columns["label"], dtype=np.float64)
    chances = 1 / (1 + np.exp(-np.array(columns["base_logit"])))
    assert chances.mean() == pytest.approx(labels.mean(), rel=1e-3)


def test_logged_requests_take_the_place_of_simulated_ones(
    data: SmallData, simulate: Simulate, bundle: Path, tmp_path: Path
) -> None:
    rows = [
        {
            "request": user,
            "user": f"user-{user}",
            "time": CUT + timedelta(days=9),
            "advertiser": IDS[place],
            "label": int(place == user % 4),
            "base_logit": float(place),
        }
        for user in range(16)
        for place in range(4)
    ]
    path = tmp_path / "requests.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    columns = simulate("--ranking-log", str(path))
    requests = by_request(columns)
    users = {who for who, _, _ in days_of_validation_users()}
    assert len(requests) == len(users)
    assert {len(rows) for rows in requests} == {4}
    assert columns["advertiser_id"][:4] == IDS[:4]
    logits = [row["base_logit"] for row in requests[0]]
    assert logits == sorted(logits)
    log = tmp_path / "log.parquet"
    origin = json.loads(pyarrow.parquet.read_schema(log).metadata[ORIGIN_KEY.encode()])
    assert origin["simulated"] is False
    assert len(read_ranking_log(log, Bundle.open(bundle)).labels) == 8 * len(requests)


def test_the_same_seed_gives_the_same_log(simulate: Simulate) -> None:
    options = ("--candidates", "4", "--seed")
    first = simulate(*options, "5")
    assert simulate(*options, "5") == first
    assert simulate(*options, "6") != first


def test_a_killed_simulation_continues(
    data: SmallData,
    bundle: Path,
    log: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The engine computes only the rest, and the log is that of an uninterrupted run."""
    output = tmp_path / "log.parquet"
    requests = len(set(read(log)["request"]))
    calls: list[Any] = []
    most, rank = 2, Forecaster.rank

    def counted(forecaster: Forecaster, *arguments: Any) -> Any:
        if len(calls) == most:
            raise KeyboardInterrupt
        calls.append(arguments)
        return rank(forecaster, *arguments)

    monkeypatch.setattr(Forecaster, "rank", counted)
    assert run(data, bundle, output) == INTERRUPTED
    assert not output.exists()
    calls.clear()
    most = requests
    capsys.readouterr()
    assert run(data, bundle, output) == 0
    assert "continues with 2 results" in capsys.readouterr().err
    assert requests > 2
    assert len(calls) == requests - 2
    assert read(output) == read(log)
    assert list(tmp_path.iterdir()) == [output]


def test_the_size_of_the_log_is_printed_first(
    data: SmallData, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, bundle, tmp_path / "log.parquet") == 0
    zeroth, first, second = capsys.readouterr().err.splitlines()[:3]
    assert zeroth.endswith(f"reading {data.path('events.parquet')}")
    assert "96 events of 16 users (16 with a profile), 2024-01-02 to 2024-02-23" in first
    assert f"requests are 6 days of 2 validation users from {CUT} on" in second


def test_another_log_is_refused_unless_accepted(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = SmallData.write(tmp_path)
    other.write_events([row for row in invented_events() if row["who"] != "user-0"])
    log = tmp_path / "log.parquet"
    assert run(other, bundle, log) == 2
    message = capsys.readouterr().err
    assert "not the log that bundle" in message
    assert message.count("\n") == 1
    assert not log.exists()
    assert run(other, bundle, log, "--other-log") == 0
    assert "look better than it is" in capsys.readouterr().err
    origin = json.loads(pyarrow.parquet.read_schema(log).metadata[ORIGIN_KEY.encode()])
    assert origin["simulated"] is True
    assert origin["is_training_log"] is False
    fit = ["fit-head", "--logs", str(log), "--bundle", str(bundle)]
    assert main([*fit, "--output", str(tmp_path / "head.onnx")]) == 0
    assert "simulated from a log that the bundle was not trained on" in capsys.readouterr().err


def test_a_log_without_later_days_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    early = SmallData.write(tmp_path)
    early.write_events([row for row in invented_events() if row["day"] < CUT])
    assert run(early, bundle, tmp_path / "log.parquet", "--other-log") == 2
    lines = capsys.readouterr().err.splitlines()
    assert f"user acts on an advertiser on or after {CUT}" in lines[-1]
    assert [line.partition(": ")[2].split()[0] for line in lines[:-1]] == ["reading"]
    assert not (tmp_path / "log.parquet").exists()


def test_days_without_an_advertiser_of_the_catalogue_are_no_requests(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = SmallData.write(tmp_path)
    held_out = {who for who, _, _ in days_of_validation_users()}
    other.write_events(
        [
            row | ({"brand": "Elsewhere"} if row["who"] in held_out and row["day"] >= CUT else {})
            for row in invented_events()
        ]
    )
    assert run(other, bundle, tmp_path / "log.parquet", "--other-log") == 2
    assert "no validation user has a request with an advertiser" in capsys.readouterr().err


def test_advertisers_outside_the_catalogue_are_no_candidates(bundle: Path, tmp_path: Path) -> None:
    other = SmallData.write(tmp_path)
    day = CUT + timedelta(days=3)
    extra = {"who": "user-0", "day": day, "brand": "Elsewhere", "kind": "FOOD"}
    other.write_events([*invented_events(), extra])
    assert run(other, bundle, tmp_path / "log.parquet", "--other-log") == 0
    table = pyarrow.parquet.read_table(tmp_path / "log.parquet")
    assert set(table["advertiser_id"].to_pylist()) == set(IDS)
