from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adprior_bench.cases import Case, day_cases
from adprior_bench.quality import command as quality
from adprior_build.catalogue import read_catalogue
from adprior_build.event_log import ColumnMap, Split, read_users
from adprior_runtime.cli import main
from adprior_runtime.context import UserContext
from adprior_runtime.forecaster import Forecaster
from unit.small_checkpoint import CUT, SmallData, build, invented_events

Run = Callable[..., dict[str, Any]]
RANKERS = ["llm", "popularity", "own_history"]
ROW_KEYS = {"ranker", "recall", "interval", "llm_minus_this", "llm_minus_this_interval"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SmallData:
    return SmallData.write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def bundle(data: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("built")
    assert data.train(place / "checkpoint") == 0
    options = ["--checkpoint", str(place / "checkpoint"), "--save-bundle", str(place / "bundle")]
    assert build(place / "repository", *options) == 0
    return place / "bundle"


@pytest.fixture
def run(data: SmallData, bundle: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Evaluate the bundle; return the JSON report."""

    def run(*options: str) -> dict[str, Any]:
        capsys.readouterr()
        arguments = ["bench", "quality", "--bundle", str(bundle), *data.log_options()]
        assert main([*arguments, "--json", *options]) == 0
        report: dict[str, Any] = json.loads(capsys.readouterr().out)
        return report

    return run


@pytest.fixture(scope="module")
def cases(data: SmallData, bundle: Path) -> list[Case]:
    """The test cases, put together without the benchmark."""
    users = read_users(
        data.path("events.parquet"),
        data.path("profiles.parquet"),
        ColumnMap.load(data.path("columns.toml")),
    )
    split = Split(test_share=0.4)
    tested = [user for user in users if split.is_test_user(user.user_id)]
    return list(day_cases(tested, CUT, read_catalogue(bundle / "catalogue.parquet")))


def case(user_id: str, past: Sequence[str], advertisers: Sequence[str]) -> Case:
    context = UserContext(profile={}, history=(), as_of=datetime(2024, 5, 31, tzinfo=UTC))
    return Case(user_id=user_id, context=context, past=tuple(past), advertisers=tuple(advertisers))


def mean_recall(cases: Sequence[Case], rankings: Sequence[Sequence[str]], k: int) -> float:
    shares = [
        len(set(ranking[:k]) & set(item.advertisers)) / len(item.advertisers)
        for item, ranking in zip(cases, rankings, strict=True)
    ]
    return sum(shares) / len(shares)


def report_of(recalls: dict[str, list[float]], owners: Sequence[str]) -> dict[str, Any]:
    found = [case(owner, [], ["Acme", "Elsewhere"]) for owner in owners]
    arrays = {name: np.array(values) for name, values in recalls.items()}
    return quality._report(found, arrays, {"Acme"}, 5)


def test_the_report_has_the_keys_that_readers_rely_on(run: Run, cases: list[Case]) -> None:
    report = run("-k", "2")
    assert set(report) == {
        "k",
        "cases",
        "users",
        "targets",
        "targets_in_catalogue",
        "rows",
        "bundle_id",
    }
    assert [row["ranker"] for row in report["rows"]] == RANKERS
    assert all(set(row) == ROW_KEYS for row in report["rows"])
    assert report["k"] == 2
    assert report["cases"] == len(cases)
    assert report["users"] == len({item.user_id for item in cases})
    assert report["targets"] == sum(len(item.advertisers) for item in cases)
    assert report["targets_in_catalogue"] == 1.0


def test_every_recall_is_what_its_ranking_gives(run: Run, bundle: Path, cases: list[Case]) -> None:
    recalls = {row["ranker"]: row["recall"] for row in run("-k", "2")["rows"]}
    forecaster = Forecaster(bundle, threads=1)
    forecasts = [forecaster.forecast(item.context, 2).names for item in cases]
    named = [[name.decode() for name in names] for names in forecasts]
    assert recalls["llm"] == pytest.approx(mean_recall(cases, named, 2))
    counts = dict.fromkeys(read_catalogue(bundle / "catalogue.parquet").names, 0)
    split, held_out = Split(test_share=0.4), Split(test_share=0.05, salt="validation")
    for row in invented_events():
        is_unseen = split.is_test_user(row["who"]) or held_out.is_test_user(row["who"])
        counts[row["brand"]] += row["day"] < CUT and not is_unseen
    popular = sorted(counts, key=lambda name: -counts[name])
    assert recalls["popularity"] == pytest.approx(mean_recall(cases, [popular] * len(cases), 2))
    assert recalls["own_history"] >= recalls["popularity"]


def test_own_history_ranks_by_count_then_by_recency_then_by_popularity() -> None:
    popular = ["Pop", "Acme", "Kite", "Last"]
    found = quality._own_history(
        case("a", ["Moss", "Acme", "Kite", "Acme", "Moss", "Nori"], []), popular, 5
    )
    assert found[:6] == ["Moss", "Acme", "Nori", "Kite", "Pop", "Last"]
    assert len(found) == len(set(found))


def test_a_new_user_is_ranked_by_popularity() -> None:
    assert quality._own_history(case("a", [], []), ["Pop", "Acme"], 2) == ["Pop", "Acme"]


def test_recall_counts_the_first_k_and_what_is_in_no_catalogue() -> None:
    cases = [
        case("a", [], ["Acme", "Kite"]),
        case("a", [], ["Moss"]),
        case("b", [], ["Acme", "Kite", "Elsewhere", "Moss"]),
    ]
    recalls = quality._recalls(cases, {"fixed": lambda _: ["Acme", "Kite", "Moss"]}, 2)
    np.testing.assert_allclose(recalls["fixed"], [1.0, 0.0, 0.5])


def test_intervals_hold_the_means_and_the_model_equals_itself() -> None:
    random = np.random.default_rng(1)
    owners = [f"user-{index % 40}" for index in range(200)]
    recalls = {name: random.uniform(size=200).tolist() for name in RANKERS}
    report = report_of(recalls, owners)
    for row in report["rows"]:
        low, high = row["interval"]
        assert low < row["recall"] < high
        assert row["recall"] == pytest.approx(np.mean(recalls[row["ranker"]]))
        low, high = row["llm_minus_this_interval"]
        difference = np.mean(recalls["llm"]) - np.mean(recalls[row["ranker"]])
        assert row["llm_minus_this"] == pytest.approx(difference)
        assert low <= row["llm_minus_this"] <= high
    assert report["rows"][0]["llm_minus_this_interval"] == (0.0, 0.0)
    assert report["targets"] == 400
    assert report["targets_in_catalogue"] == 0.5


def test_the_interval_is_the_same_every_time() -> None:
    owners = [f"user-{index % 7}" for index in range(30)]
    recalls = {"llm": [index % 3 / 2 for index in range(30)]}
    assert report_of(recalls, owners) == report_of(recalls, owners)


def test_users_are_resampled_and_not_cases() -> None:
    values = [float(index % 2) for index in range(100)]
    of_many = report_of({"llm": values}, [f"user-{index}" for index in range(100)])
    of_two = report_of({"llm": values}, [f"user-{index % 2}" for index in range(100)])
    low, high = of_many["rows"][0]["interval"]
    assert 0.35 < low < 0.45
    assert 0.55 < high < 0.65
    assert of_two["rows"][0]["interval"] == (0.0, 1.0)


def test_one_user_leaves_nothing_to_resample() -> None:
    report = report_of({"llm": [0.0, 1.0, 1.0, 1.0]}, ["a"] * 4)
    assert report["rows"][0]["interval"] == (0.75, 0.75)


def test_a_paired_difference_is_sharper_than_its_two_recalls() -> None:
    hard = [index % 10 / 10 for index in range(100)]
    better = [value + 0.05 for value in hard]
    report = report_of(
        {"llm": better, "popularity": hard}, [f"user-{index}" for index in range(100)]
    )
    low, high = report["rows"][1]["llm_minus_this_interval"]
    assert low == pytest.approx(0.05)
    assert high == pytest.approx(0.05)


def test_a_limit_takes_the_first_cases(run: Run) -> None:
    assert run("--limit", "2")["cases"] == 2


def test_the_table_tells_every_ranker_and_the_bundle(
    data: SmallData, bundle: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run()
    assert main(["bench", "quality", "--bundle", str(bundle), *data.log_options()]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"bundle {report['bundle_id']}: {report['cases']} cases")
    assert "recall@10" in shown
    for row in report["rows"]:
        assert f"{row['ranker']:<12} {row['recall']:>10.2%}" in shown


def test_a_log_without_a_later_day_of_a_test_user_is_refused(
    data: SmallData, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    early = SmallData.write(tmp_path)
    early.write_events([row for row in invented_events() if row["day"] < CUT])
    assert main(["bench", "quality", "--bundle", str(bundle), *early.log_options()]) == 2
    error = capsys.readouterr().err
    assert f"no test user has an event on or after {CUT}" in error
    assert error.count("\n") == 1
