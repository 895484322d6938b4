from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from adprior_build.data.column_map import ColumnMap
from adprior_build.data.event_log import read_users
from adprior_client.cli.documents import read_user
from adprior_runtime.cli import main
from adprior_runtime.contract import MAX_CONTEXT_BYTES
from adprior_runtime.prompt.context import parse_context
from support.small_checkpoint import CUT, IDS, NAMES, SmallData, invented_events


@pytest.fixture
def data(tmp_path: Path) -> SmallData:
    """The small data without its checkpoint."""
    data = SmallData(directory=tmp_path)
    data.write_events(invented_events())
    data.write_profiles(17)  # user-16 has no events
    data.write_columns()
    return data


def user(data: SmallData, name: str, *options: str) -> dict[str, Any]:
    path = data.path("user.json")
    code = main(["user", *data.log_options(), "--id", name, "--output", str(path), *options])
    assert code == 0
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def refusal(data: SmallData, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    path = data.path("user.json")
    assert main(["user", *data.log_options(), "--output", str(path), *options]) == 2
    assert not path.exists()
    error = capsys.readouterr().err
    assert error.startswith("adprior user: ")
    assert error.count("\n") == 1
    return error


def test_a_user_is_written_as_training_reads_them(data: SmallData) -> None:
    (known,) = (
        each
        for each in read_users(
            data.path("events.parquet"),
            data.path("profiles.parquet"),
            ColumnMap.load(data.path("columns.toml")),
        )
        if each.user_id == "user-3"
    )
    user(data, "user-3", "--as-of", CUT.isoformat())
    context = parse_context(read_user(str(data.path("user.json"))))
    as_of = datetime(CUT.year, CUT.month, CUT.day, tzinfo=UTC)
    assert context.as_of == as_of
    assert context.profile == known.profile == {"age": "30s"}
    assert list(context.history) == list(known.before(as_of).events)
    assert 0 < len(context.history) < len(known.events)


def test_by_default_the_log_is_over(data: SmallData, capsys: pytest.CaptureFixture[str]) -> None:
    last = max(row["day"] for row in invented_events())
    found = user(data, "user-3")
    assert found["as_of"] == f"{last.replace(day=last.day + 1).isoformat()}T00:00:00+00:00"
    assert len(found["history"]) == 6
    assert "6 of 6 events, those before" in capsys.readouterr().err


def test_without_output_the_user_is_printed(
    data: SmallData, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["user", *data.log_options(), "--id", "user-3"]) == 0
    assert parse_context(capsys.readouterr().out.encode()).history


def test_a_user_may_have_a_profile_only(data: SmallData) -> None:
    found = user(data, "user-16")
    assert (found["profile"], found["history"]) == ({"age": "10s"}, [])


def test_numbers_and_texts_are_one_user(data: SmallData) -> None:
    rows = [{"who": 7.0, "day": "2024-05-31", "brand": "Acme", "kind": None}]
    data.write_events(rows)
    assert main([*["user", "--id", "7", "--events"], str(data.path("events.parquet")), "--columns",
                 str(data.path("columns.toml"))]) == 0  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "nearest"),
    [("User-3", "user-3"), ("user-33", "user-3"), ("user3", "user-3"), ("???", "an id is user-0")],
)
def test_an_unknown_user_is_refused_with_the_nearest(
    data: SmallData, capsys: pytest.CaptureFixture[str], wanted: str, nearest: str
) -> None:
    error = refusal(data, capsys, "--id", wanted)
    assert f"no user {wanted!r} among 17; " in error
    assert nearest in error


def test_advertisers_ids_need_the_catalogues_names(
    data: SmallData, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row | {"brand": IDS[NAMES.index(row["brand"])]} for row in invented_events()]
    data.write_events(rows)
    data.write_catalogue({"advertiser_id": IDS, "name": NAMES})
    assert "holds ids; give --catalogue" in refusal(data, capsys, "--id", "user-3")
    found = user(data, "user-3", "--catalogue", str(data.path("catalogue.parquet")))
    assert {event["advertiser"] for event in found["history"]} == {"Acme", "Dune Coffee"}


def test_a_long_history_keeps_its_newest_events(
    data: SmallData, capsys: pytest.CaptureFixture[str]
) -> None:
    day, count = date(2024, 5, 31), 4_000
    rows = [
        {"who": "a", "day": day, "brand": f"{n:04} {'x' * 60}", "kind": None} for n in range(count)
    ]
    data.write_events(rows)
    data.write_profiles(0)
    path = data.path("user.json")
    command = ["user", "--events", str(data.path("events.parquet")), "--id", "a", "--columns"]
    assert main([*command, str(data.path("columns.toml")), "--output", str(path)]) == 0
    assert path.stat().st_size <= MAX_CONTEXT_BYTES
    history = json.loads(path.read_text())["history"]
    assert history[-1]["advertiser"].startswith(f"{count - 1} ")
    said = capsys.readouterr().err
    assert f"without the {count - len(history):,} oldest, which fit no request" in said


def test_a_wrong_row_is_named_as_in_the_file(
    data: SmallData, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"who": who, "day": day, "brand": "Acme", "kind": ""}
            for who, day in (("a", "2024-05-31"), ("b", "soon"), ("a", "later"))]  # fmt: skip
    data.write_events(rows)
    assert "row 2: time: found a string that is not" in refusal(data, capsys, "--id", "a")
