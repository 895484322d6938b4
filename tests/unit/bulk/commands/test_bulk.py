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
from adprior_bulk.run.job import Job, choose_shards
from adprior_client import ClientConfig
from adprior_runtime.cli import main
from adprior_runtime.errors import InvalidInputError

BUNDLE = str(Path(__file__).parents[4] / "demo" / "bundle")


def _bulk(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command, which must refuse; return its one line."""
    try:
        code = main(["bulk", *arguments])
    except SystemExit as stop:  # argparse's
        code = int(stop.code or 0)
    told = capsys.readouterr().err
    assert code == 2
    assert told.startswith("adprior bulk: ")
    assert told.count("\n") == 1
    return told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--bundle", BUNDLE), "give either --users or --events"),
        (("--bundle", BUNDLE, "--users", "u", "--events", "e"), "give either --users or --events"),
        (("--bundle", BUNDLE, "--events", "e"), "--events needs --columns"),
        (("--bundle", BUNDLE, "--users", "u", "--profiles", "p"), "--profiles goes with --events"),
        (("--users", "u"), "give either --bundle or --url"),
        (("--users", "u", "--bundle", BUNDLE, "--url", "h:1"), "give either --bundle or --url"),
        (("--users", "u", "--bundle", "nowhere"), "nowhere: not a bundle"),
        (("--users", "nobody.parquet", "--bundle", BUNDLE), "nobody.parquet: no such file"),
        (("--users", "u", "--max-age", "soon"), "found 'soon', expected a time such as 36h or 7d"),
        (("--users", "u", "--as-of", "soon"), "found 'soon', expected a day or time"),
        (("--users", "u", "--bundle", "b", "--as-of", "2086-01-01"), "--as-of: 2086-01-01T00:00"),
        (("--users", "u", "--url", "localhost"), "url: found 'localhost', expected HOST:PORT"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    assert told in _bulk(capsys, "--output", str(tmp_path / "out"), *arguments)
    assert not (tmp_path / "out").exists()


def test_inputs_of_another_shape_leave_nothing_behind(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pq.write_table(pa.table({"user_id": ["u"], "row": [1]}), tmp_path / "users.parquet")
    arguments = ["--users", str(tmp_path / "users.parquet"), "--bundle", BUNDLE]
    told = _bulk(capsys, *arguments, "--output", str(tmp_path / "out"))
    assert "users.parquet: no column context; found: user_id, row" in told
    assert not (tmp_path / "out").exists()


def test_a_directory_of_something_else_is_left_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pq.write_table(pa.table({"user_id": ["u"], "context": ["{}"]}), tmp_path / "users.parquet")
    arguments = ["--users", str(tmp_path / "users.parquet"), "--bundle", BUNDLE]
    told = _bulk(capsys, *arguments, "--output", str(tmp_path))
    assert "holds users.parquet and is not an output of adprior bulk" in told
    assert [path.name for path in tmp_path.iterdir()] == ["users.parquet"]


@pytest.mark.parametrize(("rows", "shards"), [(0, 16), (16_001, 17), (9_000_000, 4096)])
def test_a_shard_has_about_a_thousand_users(tmp_path: Path, rows: int, shards: int) -> None:
    path = tmp_path / "users.parquet"
    pq.write_table(pa.table({"n": pa.array(range(rows), pa.int32())}), path)
    assert choose_shards(tmp_path, Inputs(users=path), None) == shards
    assert choose_shards(tmp_path, Inputs(users=path), 5) == 5


def test_a_directory_from_the_future_can_be_gone_on_with(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    rules = Rules(as_of=now, max_age=timedelta(7), lateness=timedelta(30), bundle_id="b")
    job = Job(
        output=tmp_path,
        inputs=Inputs(users=tmp_path),
        rules=rules,
        forecaster=FleetSettings(client=ClientConfig(urls=("h:1",)), top_k=None, bundle_id="b"),
    )

    def previous(as_of: datetime) -> Manifest:
        return Manifest(
            version="v",
            request="r",
            date="2024-05-01",
            as_of=as_of.isoformat(),
            made_at=now.isoformat(),
            bundle_id="b",
            top_k=None,
            shards=1,
            files=(DataFile(path="p", shard=0, rows=1),),
        )

    plan = job._plan("request", previous(now + timedelta(60 * 365)))
    assert plan.previous == {0: ["p"]}
    with pytest.raises(InvalidInputError, match="which is earlier; choose another output"):
        job._plan("request", previous(now + timedelta(minutes=1)))


@pytest.mark.parametrize(
    ("settings", "priority"),
    [(None, "bulk"), ('token = "t"', "bulk"), ('priority = "retrieval"', "retrieval")],
)
def test_servers_are_asked_after_everybody_else(
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
