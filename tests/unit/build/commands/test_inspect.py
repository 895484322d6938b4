from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from adprior_build.commands import train
from adprior_build.data.column_map import ColumnMap
from adprior_build.data.event_log import read_users
from adprior_build.data.split import Split
from adprior_runtime.cli import main
from adprior_runtime.errors import InvalidInputError

Row = dict[str, Any]
FIRST = date(2024, 1, 1)


def log_of(users: int = 30, **changed: Any) -> dict[str, list[Any]]:
    """Return the columns of a log of 10 events a user, a week apart; some replaced by functions."""
    places = [(user, step) for user in range(users) for step in range(10)]
    columns: dict[str, Callable[[int, int], Any]] = {
        "customer": lambda user, step: f"c{user}",
        "day": lambda user, step: (FIRST + timedelta(days=7 * step + user % 5)).isoformat(),
        "brand": lambda user, step: f"Brand {(user + step) % 12}",
        "category": lambda user, step: f"KIND {step % 3}",
    }
    columns |= changed
    return {name: [make(user, step) for user, step in places] for name, make in columns.items()}


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a blank in its name, in which the commands run."""
    place = tmp_path / "my logs"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def write(columns: dict[str, list[Any]], path: str = "events.csv") -> str:
    table = pa.table(columns)
    if path.endswith(".csv"):
        pa.csv.write_csv(table, path)
    else:
        pa.parquet.write_table(table, path)
    return path


def write_profiles(users: int = 30) -> str:
    ages = [f"{number % 4}0s" for number in range(users)]
    return write({"customer": [f"c{n}" for n in range(users)], "age": ages}, "profiles.csv")


def inspect(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main(["inspect", "--json", *options]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def warnings(capsys: pytest.CaptureFixture[str], path: str, *options: str) -> str:
    return "\n".join(inspect(capsys, "--events", path, *options)["warnings"])


@pytest.mark.usefixtures("at")
def test_the_report_says_what_training_reads(capsys: pytest.CaptureFixture[str]) -> None:
    events, profiles = write(log_of()), write_profiles(24)
    found = inspect(capsys, "--events", events, "--profiles", profiles, "--output", "map.toml")
    users = read_users(Path(events), Path(profiles), ColumnMap.load(Path("map.toml")))
    log = found["log"]
    assert (log["users"], log["events"]) == (len(users), sum(len(u.events) for u in users))
    assert (log["first_day"], log["last_day"]) == ("2024-01-01", "2024-03-08")
    assert log["with_profile"] == sum(bool(user.profile) for user in users) == 24
    names = {event.advertiser for user in users for event in user.events}
    assert log["advertisers"] == log["listed"] == len(names) == 12
    split = found["split"]
    cut = Split(cut=date.fromisoformat(split["cut"]), test_share=split["test_share"])
    kept = [user for user in cut.training_part(users) if user.events]
    assert split["training_users"] == len(kept)
    assert split["training_events"] == sum(len(user.events) for user in kept)
    assert split["cut"] == "2024-03-01"
    assert cut.is_test_user(split["example"])
    training = found["training"]
    assert training["tokens_an_epoch"] > 3 * split["training_events"]
    assert 0 < training["minutes_an_epoch"][0] < training["minutes_an_epoch"][1]
    assert found["refused"] is None


@pytest.mark.usefixtures("at")
def test_the_text_ends_with_commands_to_paste(capsys: pytest.CaptureFixture[str]) -> None:
    Path(write(log_of())).rename("my events.csv")
    profiles = write_profiles()
    options = ["--events", "my events.csv", "--profiles", profiles]
    assert main(["inspect", *options]) == 0
    shown = capsys.readouterr().out
    assert "\n\nProposed column map:\n" in shown
    assert not Path("columns.toml").exists()
    commands = [line.strip() for line in shown.partition("\n\nNext:\n")[2].splitlines()]
    names = [shlex.split(command)[1] for command in commands]
    head = ["bench", "fit-head", "build"]
    assert names == ["inspect", "catalogue", "train", "build", *head, "user", "serve", "predict"]
    for command in commands[:2] + commands[7:8]:
        assert main(shlex.split(command)[1:]) == 0, command
    assert {"columns.toml", "catalogue.csv", "user.json"} <= {p.name for p in Path().iterdir()}
    assert json.loads(Path("user.json").read_text())["history"]
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    args = parser.parse_args(shlex.split(commands[2])[2:])
    assert (args.events, args.profiles) == (Path("my events.csv"), Path(profiles))
    assert args.validation_share == 0.3  # few users, of whom the head needs some


@pytest.mark.usefixtures("at")
def test_a_column_map_is_never_replaced_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["inspect", "--events", write(log_of()), "--output", "columns.toml"]
    Path("columns.toml").write_text("mine")
    assert main(options) == 2
    error = capsys.readouterr().err
    assert error == (
        "adprior inspect: columns.toml: exists; give --overwrite to replace it, or use it: "
        "--columns\n"
    )
    assert Path("columns.toml").read_text() == "mine"
    assert main([*options, "--overwrite"]) == 0
    assert ColumnMap.load(Path("columns.toml")).events.user == "customer"


@pytest.mark.usefixtures("at")
def test_a_given_column_map_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    events = write(log_of())
    Path("m.toml").write_text('[events]\nuser="customer"\ntime="day"\nadvertiser="category"\n')
    found = inspect(capsys, "--events", events, "--columns", "m.toml")
    assert found["log"]["advertisers"] == 3
    assert "--columns m.toml" in found["next_commands"][0]
    assert main(["inspect", "--events", events, "--columns", "m.toml", "--output", "n.toml"]) == 2
    assert "leave out --columns" in capsys.readouterr().err


@pytest.mark.usefixtures("at")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"customer": lambda user, step: 2.0**60}, "have lost digits"),
        (
            {"brand": lambda user, step: step + 0.5, "category": lambda user, step: 0.5},
            "no column looks like advertiser",
        ),
        ({"day": lambda user, step: None}, "no column looks like time"),
    ],
)
def test_a_log_that_training_refuses_is_described_and_refused(
    capsys: pytest.CaptureFixture[str], changed: dict[str, Any], message: str
) -> None:
    path = write(log_of(**changed), "events.parquet")
    assert main(["inspect", "--events", path]) == 2
    shown = capsys.readouterr()
    assert shown.out.startswith("events.parquet: 300 rows\ncolumn ")
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert main(["inspect", "--events", path, "--json"]) == 2
    assert message in json.loads(capsys.readouterr().out)["refused"]


MAP = '[events]\nuser="customer"\ntime="day"\nadvertiser="brand"\n'


def refuse(capsys: pytest.CaptureFixture[str], columns: str, profiles: str | None = None) -> str:
    """Return the report of events.csv, which ends with the line with which training refuses it."""
    Path("mine.toml").write_text(columns)
    options = ["--events", "events.csv"] + ([] if profiles is None else ["--profiles", profiles])
    assert main(["inspect", *options, "--columns", "mine.toml"]) == 2
    shown = capsys.readouterr()
    people = None if profiles is None else Path(profiles)
    with pytest.raises(InvalidInputError) as error:
        read_users(Path("events.csv"), people, ColumnMap.load(Path("mine.toml")))
    assert shown.err == f"adprior inspect: {error.value}\n"
    assert main(["inspect", *options, "--columns", "mine.toml", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["refused"], found["next_commands"]) == (str(error.value), [])
    assert "Next:" not in shown.out
    return shown.out + shown.err


@pytest.mark.usefixtures("at")
@pytest.mark.parametrize(
    ("usual", "wrong", "message"),
    [
        ("2024-05-31 12:00:00Z", "", "row 7 has no user or no time"),
        ("2024-05-31", "yesterday", "row 7: time"),
        ("1700000000", "99999999999999", "row 7: the time lies beyond the calendar"),
    ],
)
def test_rows_that_training_refuses_are_counted_and_refused(
    capsys: pytest.CaptureFixture[str], usual: str, wrong: str, message: str
) -> None:
    def day(user: int, step: int) -> str:
        return wrong if (user, step) in ((0, 7), (1, 0)) else usual

    write(log_of(day=day))
    shown = refuse(capsys, MAP + ('time_unit="s"\n' if usual.isdigit() else ""))
    assert "2 rows have no user, no time" in shown
    assert "the first in row 7 (from 0)" in shown
    assert f"adprior inspect: events.csv: {message}" in shown


@pytest.mark.usefixtures("at")
def test_profiles_that_match_no_user_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write(log_of(customer=lambda user, step: f"{user}.0"))
    shown = refuse(capsys, MAP + '[profiles]\nuser="customer"\n', write_profiles())
    assert "profiles.csv: none of the 30 users of events.csv has a profile" in shown
    assert "0 of 30 users have a profile" in shown


@pytest.mark.usefixtures("at")
def test_no_map_is_written_for_a_refused_log(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["inspect", "--output", "columns.toml", "--events"]
    write(log_of(day=lambda user, step: "2024-05-31 12:00Z" if user + step else ""))
    assert main([*options, "events.csv"]) == 2
    write(log_of(customer=lambda user, step: f"{user}.0"))
    assert main([*options, "events.csv", "--profiles", write_profiles()]) == 2
    assert "wrote" not in capsys.readouterr().err
    assert not Path("columns.toml").exists()


@pytest.mark.usefixtures("at")
@pytest.mark.parametrize(
    ("changed", "warning"),
    [
        ({"customer": lambda user, step: f"{user}.0"}, "look like floats (7.0)"),
        ({"customer": lambda user, step: "1.2E+10"}, "lost digits in a spreadsheet"),
        ({"day": lambda user, step: f"2024-05-{1 + step:02} 12:00"}, "times without a zone"),
        ({"day": lambda user, step: f"2024-05-{1 + step:02} 12:00{'Z' * (step % 2)}"}, "some rows"),
        ({"day": lambda user, step: "2024-05-31"}, "the log has one day"),
        ({"day": lambda user, step: f"1971-05-{1 + step:02}"}, "are these days right?"),
        ({"brand": lambda user, step: f"{user} {step}"}, "is it a title or an item"),
        ({"brand": lambda user, step: "x" * 70 + str(step)}, "names longer than 64 characters"),
        ({"brand": lambda user, step: step}, "brand holds ids"),
        ({"brand": lambda user, step: "Acme" if step else ""}, "will have 1 of 1 advertisers"),
        ({"brand": lambda user, step: "" if step else "Acme"}, "270 of 300 events name no"),
        ({"customer": lambda user, step: f"{user} {step}"}, "have one event"),
        ({"brand": lambda user, step: "A", "category": lambda user, step: "B",
          "day": lambda user, step: f"2024-05-{1 + step // 2:02}"}, "150 rows repeat another"),
        ({"": lambda user, step: 10 * user + step}, "numbers the rows"),
    ],
)  # fmt: skip
def test_a_csv_is_warned_of(
    capsys: pytest.CaptureFixture[str], changed: dict[str, Any], warning: str
) -> None:
    assert warning not in warnings(capsys, write(log_of()))
    assert warning in warnings(capsys, write(log_of(**changed)))


@pytest.mark.usefixtures("at")
@pytest.mark.parametrize(
    ("changed", "warning"),
    [
        ({"customer": lambda user, step: float(user)}, "customer holds ids as double"),
        ({"tags": lambda user, step: ["a", "b"]}, "columns of lists are not read: tags"),
        ({"day": lambda user, step: 1_700_000_000 + step}, ""),
    ],
)
def test_a_parquet_file_is_warned_of(
    capsys: pytest.CaptureFixture[str], changed: dict[str, Any], warning: str
) -> None:
    assert warning in warnings(capsys, write(log_of(**changed), "events.parquet"))


@pytest.mark.usefixtures("at")
def test_a_wrong_unit_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    events = write(log_of(day=lambda user, step: 1_700_000_000 + step))
    Path("m.toml").write_text(
        '[events]\nuser="customer"\ntime="day"\nadvertiser="brand"\ntime_unit="ms"\n'
    )
    found = warnings(capsys, events, "--columns", "m.toml")
    assert 'events from 1970-01-20 to 1970-01-20: is time_unit = "ms" right?' in found


@pytest.mark.usefixtures("at")
def test_users_without_profiles_and_protected_keys_are_warned_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = warnings(capsys, write(log_of()), "--profiles", write_profiles(6))
    assert "24 of the 30 users have no profile" in found
    assert "the model will read age: leave out of keys, or deny" in found
    Path("m.toml").write_text(
        '[events]\nuser="customer"\ntime="day"\nadvertiser="brand"\n[profiles]\nuser="customer"\n'
    )
    options = ("--profiles", "profiles.csv", "--columns", "m.toml")
    assert "the model will read age: " in warnings(capsys, "events.csv", *options)


@pytest.mark.usefixtures("at")
def test_a_guessed_user_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    guess = "no column's name says who the user is: Nummer is a guess, with "
    log = log_of()
    assert guess not in warnings(capsys, write(log))
    log["Nummer"] = log.pop("customer")
    assert guess in warnings(capsys, write(log))
    Path("m.toml").write_text('[events]\nuser="Nummer"\ntime="day"\nadvertiser="brand"\n')
    assert guess not in warnings(capsys, write(log), "--columns", "m.toml")


@pytest.mark.usefixtures("at")
def test_contacts_never_get_into_prompts(capsys: pytest.CaptureFixture[str]) -> None:
    users = range(200)
    people = {"customer": [f"c{n}" for n in users], "email": [f"{n}@example.org" for n in users]}
    people["phone"] = [f"+1 555 {n:04}" for n in users]
    options = ["--events", write(log_of()), "--profiles", write(people, "profiles.csv")]
    found = inspect(capsys, *options, "--output", "columns.toml")
    assert found["column_map"]["profiles"] is None
    assert ColumnMap.load(Path("columns.toml")).profiles is None
    assert found["log"]["with_profile"] is None
    assert not any("--profiles" in command for command in found["next_commands"])
    (warning,) = found["warnings"]
    assert "(found: email, phone)" in warning
    assert "the next commands do without --profiles" in warning
    with pytest.raises(InvalidInputError, match=r"the column map has no table \[profiles\]"):
        read_users(Path(options[1]), Path(options[3]), ColumnMap.load(Path("columns.toml")))
    assert main(["inspect", *options]) == 0
    shown = capsys.readouterr().out
    assert warning in shown
    assert "--profiles" not in shown.partition("\n\nNext:\n")[2]


@pytest.mark.usefixtures("at")
@pytest.mark.parametrize("attribute", ["30s", None], ids=["keys", "no keys"])
def test_no_id_of_a_user_is_an_example(
    capsys: pytest.CaptureFixture[str], attribute: str | None
) -> None:
    secret = "ann@example.org"
    events = write(log_of(customer=lambda user, step: f"c{user}" if user + step % 2 else secret))
    people = {"customer": [secret, secret, *(f"c{n}" for n in range(30))]}
    people["age"] = [attribute or ""] * 32
    Path("mine.toml").write_text(MAP + '[profiles]\nuser="customer"\n')
    options = ["--events", events, "--profiles", write(people, "profiles.csv")]
    for given in ([], ["--columns", "mine.toml"]):
        found = inspect(capsys, *options, *given)
        for columns in (found["event_columns"], found["profile_columns"]):
            assert {each["name"]: each["example"] for each in columns}["customer"] == ""
        assert found["event_columns"][2]["example"].startswith("Brand ")
        assert main(["inspect", *options, *given]) == 0
        assert secret not in capsys.readouterr().out


@pytest.mark.usefixtures("at")
def test_an_id_of_each_advertiser_goes_into_the_catalogue(
    capsys: pytest.CaptureFixture[str],
) -> None:
    events = write(log_of(brand_id=lambda user, step: 500 + (user + step) % 12))
    (command,) = (
        each
        for each in inspect(capsys, "--events", events)["next_commands"]
        if each.startswith("adprior catalogue ")
    )
    assert "--id-column brand_id" in command
    events = write(log_of(brand_id=lambda user, step: user))
    assert not any("--id-column" in e for e in inspect(capsys, "--events", events)["next_commands"])


@pytest.mark.usefixtures("at")
def test_categoricals_are_read_as_their_values(capsys: pytest.CaptureFixture[str]) -> None:
    plain = log_of()
    coded = plain | {name: pa.array(plain[name]).dictionary_encode() for name in plain}
    facts = [
        inspect(capsys, "--events", write(columns, "events.parquet")) for columns in (plain, coded)
    ]
    assert facts[0]["log"] == facts[1]["log"]
    assert facts[0]["column_map"] == facts[1]["column_map"]
