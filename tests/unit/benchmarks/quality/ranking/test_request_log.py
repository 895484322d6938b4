from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from adprior_bench.quality.histories import day_of
from adprior_bench.quality.ranking.ranking_task import logged_task
from adprior_bench.quality.ranking.request_log import RequestLog, read_request_log
from adprior_bench.quality.study import Splits, Study
from adprior_build.catalogue.catalogue_file import read_catalogue
from adprior_build.data.column_map import ColumnMap
from adprior_build.data.split import Split
from adprior_runtime.errors import InvalidInputError
from support.small_checkpoint import CUT, IDS, NAMES, SmallData

SPLITS = Splits(
    cut=CUT,
    test=Split(cut=CUT, test_share=0.4),
    validation=Split(test_share=0.4, salt="validation"),
)
EARLY, LATE = CUT - timedelta(days=8), CUT + timedelta(days=8)


def some_user(group: str) -> str:
    return next(f"user-{n}" for n in range(16) if SPLITS.group_of(f"user-{n}") == group)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    data = SmallData.write(tmp_path_factory.mktemp("data"))
    return Study.read(
        SPLITS,
        read_catalogue(data.path("catalogue.parquet")),
        data.path("events.parquet"),
        data.path("profiles.parquet"),
        ColumnMap.load(data.path("columns.toml")),
    )


def request(name: Any, group: str, day: Any, labels: dict[str, int], **more: Any) -> list[Any]:
    """Return a row for each candidate."""
    row = {"request": name, "user": some_user(group), "time": day, **more}
    return [{**row, "advertiser": brand, "label": label} for brand, label in labels.items()]


def rows(**more: Any) -> list[Any]:
    shown = {NAMES[1]: 0, NAMES[0]: 1, NAMES[3]: 0}
    return [
        *request(1, "training", EARLY, shown, **more),
        *request(2, "validation", LATE, shown, **more),
        *request(3, "test", LATE, shown, **more),
        *request(4, "test", LATE + timedelta(days=1), {NAMES[2]: 0, NAMES[4]: 0}, **more),
    ]


def read(study: Study, path: Path, found: list[Any], limit: int | None = None) -> RequestLog:
    pa.parquet.write_table(pa.Table.from_pylist(found), path / "log.parquet")
    return read_request_log(path / "log.parquet", study, limit=limit)


def test_requests_are_cases_of_their_users_group(study: Study, tmp_path: Path) -> None:
    log = read(study, tmp_path, rows())
    assert not log.left_out
    assert [len(each.cases) for each in (log.training, log.validation, log.test)] == [1, 1, 2]
    first, second = log.test.cases
    assert (first.user.user_id, first.day) == (some_user("test"), day_of(LATE))
    assert (first.targets.tolist(), second.targets.tolist()) == ([0], [])
    found = log.test.impressions
    assert found.cases.tolist() == [0, 0, 0, 1, 1]
    assert found.rows.tolist() == [0, 1, 3, 2, 4]
    assert found.labels.tolist() == [1, 0, 0, 0, 0]


def test_a_forecast_sees_strictly_earlier_days(study: Study, tmp_path: Path) -> None:
    """The users of this log act on the day of one of their requests."""
    events = study.histories[some_user("test")].events
    own = next(event.time.date() for event in events if event.time.date() > CUT)
    shown = {NAMES[0]: 1, NAMES[1]: 0}
    log = read(study, tmp_path, [*rows(), *request(5, "test", own, shown)])
    days = [case.day for case in log.test.cases]
    case = log.test.cases[days.index(day_of(own))]
    assert case.user.days[case.stop - 1] < day_of(own) == case.user.days[case.stop]
    context = study.context(case)
    assert max(event.time.date() for event in context.history) < own
    # A training user's events from the cut on are not known to anybody.
    assert log.training.cases[0].user.days.max() < day_of(CUT)


def test_rows_outside_the_protocol_are_counted(study: Study, tmp_path: Path) -> None:
    shown = {NAMES[0]: 1, "Elsewhere": 1, NAMES[1]: 0}
    more = [
        *request(5, "test", EARLY, shown),
        *request(6, "training", LATE, shown),
        *request(7, "validation", LATE, shown),
    ]
    more += [{**row, "request": 8, "user": "nobody"} for row in request(8, "test", LATE, shown)]
    log = read(study, tmp_path, [*rows(), *more])
    assert log.left_out == {
        "of advertisers outside the catalogue": 4,
        "of users outside the evaluation": 2,
        "of training users that close after the cut": 2,
        "of other users before the cut": 2,
    }
    assert [case.missed for case in log.validation.cases] == [0, 1]


def test_a_label_that_was_open_at_the_cut_is_not_learnt_from(study: Study, tmp_path: Path) -> None:
    assert len(read(study, tmp_path, rows(closes=CUT - timedelta(days=1))).training.cases) == 1
    log = read(study, tmp_path, rows(closes=CUT))
    assert len(log.training.cases) == 0
    assert len(log.test.cases) == 2


def test_ids_of_the_catalogue_and_csv_give_the_same(study: Study, tmp_path: Path) -> None:
    named = read(study, tmp_path, rows())
    by_id = [{**row, "advertiser": IDS[NAMES.index(row["advertiser"])]} for row in rows()]
    pa.csv.write_csv(pa.Table.from_pylist(by_id), tmp_path / "log.csv")
    for found in (read(study, tmp_path, by_id), read_request_log(tmp_path / "log.csv", study)):
        assert found.test.impressions.rows.tolist() == named.test.impressions.rows.tolist()
        assert found.test.impressions.labels.tolist() == named.test.impressions.labels.tolist()


def test_a_limit_draws_whole_requests(study: Study, tmp_path: Path) -> None:
    log = read(study, tmp_path, rows(), limit=1)
    assert len(log.test.cases) == len(log.training.cases) == 1
    assert set(log.test.impressions.cases.tolist()) == {0}


def test_logged_logits_are_taken_as_they_are(study: Study, tmp_path: Path) -> None:
    found = [{**row, "base_logit": place / 4} for place, row in enumerate(rows())]
    task = logged_task(study, read(study, tmp_path, found))
    assert task.test.logits.tolist() == [1.75, 1.5, 2.0, 2.25, 2.5]
    assert not task.importance
    assert "logged, not simulated" in task.notes[0]


def test_without_logits_a_base_ranker_learns_from_earlier_requests(
    study: Study, tmp_path: Path
) -> None:
    task = logged_task(study, read(study, tmp_path, rows()), threads=1)
    assert np.isfinite(task.test.logits).all()
    assert len(task.test.logits) == len(task.test.impressions.rows) == 5
    assert task.importance
    with pytest.raises(InvalidInputError, match="the base ranker has nothing to learn from"):
        logged_task(study, read(study, tmp_path, rows(closes=CUT)), threads=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 2}, "label: row 0 .*expected 0 or 1"),
        ({"user": "user-9"}, "row 1 .*: request 1 has another user or day"),
        ({"base_logit": float("nan")}, "base_logit: row 0 .*expected a finite number"),
    ],
)
def test_wrong_rows_are_named(
    study: Study, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    first, *others = rows(base_logit=0.5)
    with pytest.raises(InvalidInputError, match=message):
        read(study, tmp_path, [first | change, *others])
