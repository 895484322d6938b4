from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from adprior_bench.quality.histories import NONE, day_of
from adprior_bench.quality.study import Splits, Study
from adprior_build.catalogue.catalogue_file import read_catalogue
from adprior_build.data.column_map import ColumnMap
from adprior_build.data.event_log import read_users
from adprior_build.data.split import Split
from adprior_runtime.cli import main
from adprior_runtime.errors import InvalidInputError
from support.small_checkpoint import CUT, NAMES, SmallData, invented_events

SPLITS = Splits(
    cut=CUT,
    test=Split(cut=CUT, test_share=0.4),
    validation=Split(test_share=0.4, salt="validation"),
)


@pytest.fixture
def data(tmp_path: Path) -> SmallData:
    return SmallData.write(tmp_path)


def read(data: SmallData, splits: Splits = SPLITS) -> Study:
    return Study.read(
        splits,
        read_catalogue(data.path("catalogue.parquet")),
        data.path("events.parquet"),
        data.path("profiles.parquet"),
        ColumnMap.load(data.path("columns.toml")),
    )


def groups() -> dict[str, set[str]]:
    names = [f"user-{index}" for index in range(16)]
    found: dict[str, set[str]] = {"training": set(), "validation": set(), "test": set()}
    for name in names:
        found[SPLITS.group_of(name)].add(name)
    return found


def test_a_larger_sample_contains_the_smaller_one(data: SmallData) -> None:
    study = read(data)

    def drawn(most: int) -> list[tuple[str, int]]:
        limited = study.limited(most)
        assert len(limited.validation) == min(most, len(study.validation))
        return [(case.user.user_id, case.day) for case in limited.test]

    assert len(study.test) > 5
    assert drawn(2) == drawn(2)
    assert len(drawn(2)) == 2
    assert set(drawn(2)) < set(drawn(5))
    everything = [(case.user.user_id, case.day) for case in study.test]
    assert drawn(10**6) == everything
    assert [case for case in everything if case in drawn(5)] == drawn(5)
    other = read(data).limited(5)
    assert [(case.user.user_id, case.day) for case in other.test] == drawn(5)


def test_the_training_record_defines_the_groups() -> None:
    record = {
        "split": {
            "cut": "2024-02-01",
            "test_share": 0.4,
            "salt": "adprior",
            "validation_share": 0.4,
        }
    }
    assert Splits.recorded(record) == SPLITS


@pytest.mark.parametrize("missing", ["cut", "test_share", "validation_share"])
def test_a_model_without_unseen_users_is_refused(missing: str) -> None:
    split: dict[str, Any] = {
        "cut": "2024-02-01",
        "test_share": 0.4,
        "salt": "adprior",
        "validation_share": 0.4,
    }
    with pytest.raises(InvalidInputError, match="--" + missing.replace("_", "-")):
        Splits.recorded({"split": split | {missing: None}})


def test_groups_are_disjoint_and_training_ends_at_the_cut(data: SmallData) -> None:
    study = read(data)
    expected = groups()
    assert all(expected.values())
    assert {user.user_id for user in study.training.users} == expected["training"]
    assert {case.user.user_id for case in study.validation} == expected["validation"]
    assert {case.user.user_id for case in study.test} == expected["test"]
    for user in study.training.users:
        assert len(user.days)
        assert user.days.max() < day_of(CUT)
    for case in [*study.validation, *study.test]:
        assert case.day >= day_of(CUT)


def test_a_case_has_strictly_earlier_days_only(data: SmallData) -> None:
    study = read(data)
    users = {
        user.user_id: user
        for user in read_users(
            data.path("events.parquet"), None, replace(ColumnMap.load(data.path("columns.toml")))
        )
    }
    for case in [*study.validation, *study.test]:
        context = study.context(case)
        day = date.fromordinal(case.day + date(1970, 1, 1).toordinal())
        assert context.as_of == datetime(day.year, day.month, day.day, tzinfo=UTC)
        everything = users[case.user.user_id].events
        earlier = [event for event in everything if event.time < context.as_of]
        assert list(context.history) == earlier
        assert len(earlier) == case.stop
        assert (case.user.days[: case.stop] < case.day).all()
        today = {e.advertiser for e in everything if e.time.date() == day}
        assert {NAMES[row] for row in case.targets} == today


def test_test_users_influence_nothing_that_is_learnt_or_tuned(data: SmallData) -> None:
    """Catalogue, popularity, categories and cases do not depend on test users."""
    expected = groups()["test"]

    def learnt(directory: Path, rows: list[dict[str, Any]]) -> tuple[Any, ...]:
        changed = SmallData.write(directory)
        changed.write_events(rows)
        derive = ["catalogue", "--events", str(changed.path("events.parquet"))]
        derive += ["--columns", str(changed.path("columns.toml")), "--min-users", "2"]
        derive += ["--cut", CUT.isoformat(), "--test-share", "0.4"]
        assert main([*derive, "--output", str(directory / "derived.csv")]) == 0
        assert changed.train(directory / "checkpoint", "--validation-share", "0.4") == 0
        study = read(changed)
        return (
            (directory / "derived.csv").read_bytes(),
            (directory / "checkpoint" / "popularity.parquet").read_bytes(),
            (directory / "checkpoint" / "model.safetensors").read_bytes(),
            (directory / "checkpoint" / "tokenizer.json").read_bytes(),
            study.categories,
            [(u.user_id, u.rows.tolist(), u.days.tolist()) for u in study.training.users],
            [(c.user.user_id, c.day, c.targets.tolist()) for c in study.validation],
            [(c.user.user_id, c.day, c.targets.tolist()) for c in study.later],
        )

    rows = invented_events()
    other = [
        row | {"brand": NAMES[3], "kind": "OTHER"} if row["who"] in expected else row
        for row in rows
    ]
    assert rows != other
    one, two = (data.path(name) for name in ("one", "two"))
    one.mkdir()
    two.mkdir()
    assert learnt(one, rows) == learnt(two, other)


def test_categories_are_frequent_ones_of_training_users(data: SmallData) -> None:
    training = sorted(groups()["training"])
    rows = [
        {"who": training[0], "day": date(2024, 1, 1), "brand": "Acme", "kind": "OFTEN"}
        for _ in range(20)
    ]
    data.write_events([*invented_events(), *rows])
    study = read(data)
    assert "OFTEN" in study.categories
    (user,) = (u for u in study.training.users if u.user_id == training[0])
    place = list(study.categories).index("OFTEN")
    assert (user.categories == place).sum() == 20
    assert (user.categories[user.categories != place] == NONE).all()


def test_a_group_without_cases_is_refused(data: SmallData) -> None:
    with pytest.raises(InvalidInputError, match="no validation user acts on an advertiser"):
        read(data, replace(SPLITS, validation=Split(test_share=1e-9, salt="validation")))
