from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adprior_bulk.commands.bulk import _client_config, add_arguments
from adprior_bulk.inputs.pieces import Inputs
from adprior_bulk.output.manifest import DataFile, Manifest
from adprior_bulk.run.due_users import Rules
from adprior_bulk.run.fleet_forecaster import FleetSettings
from adprior_bulk.run.job import Job
from adprior_bulk.run.shard_plan import choose_shards
from adprior_client import ClientConfig
from adprior_runtime.cli import main
from adprior_runtime.errors import InvalidInputError
from support.bulk_outputs import make_manifest


def _bulk(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that fails; return its error line."""
    try:
        code = main(["bulk", *arguments])
    except SystemExit as stop:  # argparse's
        code = int(stop.code or 0)
    message = capsys.readouterr().err
    assert code == 2
    assert message.startswith("adprior bulk: ")
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--bundle", "TINY"), "give either --users or --events"),
        (("--bundle", "TINY", "--users", "u", "--events", "e"), "give either --users or --events"),
        (("--bundle", "TINY", "--events", "e"), "--events needs --columns"),
        (("--bundle", "TINY", "--users", "u", "--profiles", "p"), "--profiles goes with --events"),
        (("--users", "u"), "give either --bundle or --url"),
        (("--users", "u", "--bundle", "TINY", "--url", "h:1"), "give either --bundle or --url"),
        (("--users", "u", "--bundle", "nowhere"), "nowhere: not a bundle"),
        (
            ("--users", "u", "--bundle", "TINY", "--interests", "3"),
            "is a bundle without interests",
        ),
        (
            ("--users", "u", "--url", "h:1", "--device", "cuda"),
            "--device cuda goes with --bundle: servers have theirs",
        ),
        (("--users", "nobody.parquet", "--bundle", "TINY"), "nobody.parquet: no such file"),
        (("--users", "u", "--max-age", "soon"), "found 'soon', expected a time such as 36h or 7d"),
        (("--users", "u", "--as-of", "soon"), "found 'soon', expected a day or time"),
        (("--users", "u", "--bundle", "b", "--as-of", "2086-01-01"), "--as-of: 2086-01-01T00:00"),
        (("--users", "u", "--url", "localhost"), "url: found 'localhost', expected HOST:PORT"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    capsys: pytest.CaptureFixture[str],
    tiny_bundle: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    arguments = tuple(str(tiny_bundle) if each == "TINY" else each for each in arguments)
    assert message in _bulk(capsys, "--output", str(tmp_path / "out"), *arguments)
    assert not (tmp_path / "out").exists()


def test_inputs_without_a_column_leave_no_output(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Path, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"user_id": ["u"], "row": [1]}), tmp_path / "users.parquet")
    arguments = ["--users", str(tmp_path / "users.parquet")]
    arguments += ["--bundle", str(tiny_bundle)]
    message = _bulk(capsys, *arguments, "--output", str(tmp_path / "out"))
    assert "users.parquet: no column context; found: user_id, row" in message
    assert not (tmp_path / "out").exists()


def test_a_foreign_directory_is_left_alone(
    capsys: pytest.CaptureFixture[str], tiny_bundle: Path, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"user_id": ["u"], "context": ["{}"]}), tmp_path / "users.parquet")
    arguments = ["--users", str(tmp_path / "users.parquet")]
    arguments += ["--bundle", str(tiny_bundle)]
    message = _bulk(capsys, *arguments, "--output", str(tmp_path))
    assert "holds users.parquet and is not an output of adprior bulk" in message
    assert [path.name for path in tmp_path.iterdir()] == ["users.parquet"]


@pytest.mark.parametrize(("rows", "shards"), [(0, 16), (16_001, 17), (9_000_000, 4096)])
def test_a_shard_has_about_a_thousand_users(tmp_path: Path, rows: int, shards: int) -> None:
    path = tmp_path / "users.parquet"
    pq.write_table(pa.table({"n": pa.array(range(rows), pa.int32())}), path)
    assert choose_shards(tmp_path, Inputs(users=path), None) == shards
    assert choose_shards(tmp_path, Inputs(users=path), 5) == 5


def test_a_table_dated_in_the_future_does_not_stop_new_runs(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    rules = Rules(as_of=now, max_age=timedelta(7), lateness=timedelta(30), bundle_id="b")
    job = Job(
        output=tmp_path,
        inputs=Inputs(users=tmp_path),
        rules=rules,
        forecaster=FleetSettings(client=ClientConfig(urls=("h:1",)), top_k=None, bundle_id="b"),
    )

    def previous(as_of: datetime) -> Manifest:
        files = (DataFile(path="p", shard=0, rows=1),)
        return make_manifest(as_of=as_of.isoformat(), files=files)

    plan = job._plan("request", previous(now + timedelta(60 * 365)))
    assert plan.previous == {0: ["p"]}
    with pytest.raises(InvalidInputError, match="which is earlier; choose another output"):
        job._plan("request", previous(now + timedelta(minutes=1)))


@pytest.mark.parametrize(
    ("settings", "priority"),
    [(None, "bulk"), ('token = "t"', "bulk"), ('priority = "retrieval"', "retrieval")],
)
def test_calls_have_bulk_priority_unless_the_client_sets_another(
    tmp_path: Path, settings: str | None, priority: str
) -> None:
    arguments = ["--url", "h:1", "--output", "o"]
    if settings is not None:
        (tmp_path / "client.toml").write_text(f'urls = ["other:1"]\n{settings}\n')
        (tmp_path / "client.toml").chmod(0o600)
        arguments += ["--client", str(tmp_path / "client.toml")]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    config = _client_config(parser.parse_args(arguments))
    assert (config.urls, config.priority) == (("h:1",), priority)
