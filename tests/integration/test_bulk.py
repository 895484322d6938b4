"""`adprior bulk` on a real Ray, in-process and against the real tritonserver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from adprior_build.data.column_map import ColumnMap
from adprior_bulk.inputs.pieces import Inputs
from adprior_bulk.output.manifest import Manifest
from adprior_bulk.run.bundle_forecaster import BundleSettings
from adprior_bulk.run.due_users import Rules
from adprior_bulk.run.fleet_forecaster import FleetSettings, ask_bundle_id
from adprior_bulk.run.job import Job
from adprior_bulk.run.ray_cluster import connect
from adprior_bulk.run.user_forecaster import ForecasterSettings
from adprior_client import ClientConfig, ParquetForecasts, RetrievalClient
from adprior_runtime.bundle import Bundle
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.prompt.context import parse_context
from adprior_runtime.server.tritonserver import TritonServer
from integration.bulk_equality import assert_equal_to_server, contexts_of, run_and_compare
from integration.bulk_kills import BULK, assert_same_forecasts, read_output
from support.bulk_outputs import make_manifest
from support.data_set import DataSet
from support.paths import DEMO, ROOT
from support.processes import await_true

pytestmark = [
    pytest.mark.triton,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),  # its own defaults
]

SHARED = ROOT.parent / "shared" / "data" / "oec"
AS_OF = datetime(2024, 3, 20, tzinfo=UTC)
DAY = timedelta(days=1)
SECRET = "hunter2"
POISON = {
    "broken": b'{"as_of": "2024-03-20", "profile": {"hunter2": ',
    "no-time": b'{"profile": {"x": "hunter2"}}',
    "wrong-type": b'{"as_of": "2024-03-20", "history": "hunter2"}',
    "not-utf8": b'{"as_of": "2024-03-20", "profile": {"x": "hunter2 \xff"}}',
    "large": b'{"as_of": "2024-03-20", "x": "' + b"hunter2" * 60_000 + b'"}',
    "deep": b'{"as_of": "2024-03-20", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "ancient": b'{"as_of": "0001-01-05"}',
    "far": b'{"as_of": "9999-12-31"}',
    "no-room": json.dumps(
        {"as_of": "2024-03-20", "profile": {f"hunter2 {n}": "hunter2 " * 9 for n in range(99)}}
    ).encode(),
}

RunJob = Callable[..., Any]


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> Iterator[None]:
    """Start one Ray for all tests: each start takes seconds."""
    with connect(None, 2):
        yield


@pytest.fixture(scope="module")
def contexts(data_set: DataSet) -> dict[str, bytes]:
    """Return the contexts of all users, made from training's reader, not by the tested code."""
    return contexts_of(_events(data_set), AS_OF)


def _events(data_set: DataSet, path: Path | None = None) -> Inputs:
    return Inputs(
        events=path or data_set.path("events.parquet"),
        profiles=data_set.path("profiles.parquet"),
        columns=ColumnMap.load(data_set.path("columns.toml")),
    )


def _users(path: Path, contexts: dict[str, bytes]) -> Inputs:
    columns = {"user_id": list(contexts), "context": pa.array(contexts.values(), pa.binary())}
    pq.write_table(pa.table(columns), path)
    return Inputs(users=path)


def _job(
    output: Path, inputs: Inputs, forecaster: ForecasterSettings, bundle: Path, workers: int = 1
) -> Job:
    rules = Rules(
        as_of=AS_OF,
        max_age=7 * DAY,
        lateness=30 * DAY,
        bundle_id=Bundle.open(bundle, ()).manifest.bundle_id,
        shards=3,
    )
    return Job(
        output=output,
        inputs=inputs,
        rules=rules,
        forecaster=forecaster,
        workers=workers,
        quiet=True,
    )


def _served(server: TritonServer, bundle: Path) -> FleetSettings:
    client = ClientConfig(urls=(server.grpc_address,), deadline_s=30)
    bundle_id = ask_bundle_id(client)
    assert bundle_id == Bundle.open(bundle, ()).manifest.bundle_id
    return FleetSettings(client=client, top_k=None, bundle_id=bundle_id)


def test_every_forecast_equals_the_servers(
    data_set: DataSet,
    contexts: dict[str, bytes],
    bundle: Path,
    server: TritonServer,
    retrieval: RetrievalClient,
    tmp_path: Path,
) -> None:
    in_process = BundleSettings(bundle=bundle, top_k=None)
    users = _users(tmp_path / "users.parquet", contexts | POISON)
    summaries = {}
    for name, inputs, engine, workers in (
        ("events", _events(data_set), in_process, 2),
        ("users", users, in_process, 1),
        ("served", users, _served(server, bundle), 2),
    ):
        summaries[name] = _job(tmp_path / name, inputs, engine, bundle, workers).run()
    found = read_output(tmp_path / "events")
    assert_equal_to_server(found, contexts, retrieval)
    for row in found.to_pylist():
        assert row["as_of"] == AS_OF
        assert (np.diff(row["log_probs"]) <= 0).all()
        assert np.exp(row["log_probs"]).sum() + row["missing_mass"] <= 1 + 1e-5
    for name in ("users", "served"):
        assert_same_forecasts(found, read_output(tmp_path / name))
        assert summaries[name].counts["dead_letters"] == len(POISON)
        _assert_dead_letters(tmp_path / name)
    # Tools that know no manifest read the directory.
    as_it_is = pq.read_table(tmp_path / "served").sort_by("user_id")
    assert as_it_is.equals(read_output(tmp_path / "served"))
    stored_forecasts = ParquetForecasts(tmp_path / "served")
    assert len(stored_forecasts) == len(contexts)
    assert stored_forecasts.find(found["user_id"][0].as_py()) is not None


@pytest.mark.data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data set is missing")
def test_forecasts_of_real_users_equal_the_servers(tiny_bundle: Path, tmp_path: Path) -> None:
    """This compares a sample; `integration.bulk_equality` compares all users."""
    log = pq.read_table(SHARED / "events.parquet")
    few = pc.unique(log["user_id"])[::60]
    pq.write_table(log.filter(pc.is_in(log["user_id"], few)), tmp_path / "events.parquet")
    inputs = Inputs(
        events=tmp_path / "events.parquet",
        profiles=SHARED / "profiles.parquet",
        columns=ColumnMap.load(DEMO / "columns.toml"),
    )
    done = run_and_compare(inputs, tiny_bundle, datetime(2022, 9, 1, tzinfo=UTC), tmp_path)
    assert done > 20


def _assert_dead_letters(output: Path) -> None:
    manifest = Manifest.load(output)
    assert manifest is not None
    letters = pa.concat_tables(
        [pq.read_table(output / file.path, partitioning=None) for file in manifest.dead_letters]
    ).to_pylist()
    assert {letter["user_id"] for letter in letters} == POISON.keys()
    for letter in letters:
        assert letter["code"] == "INVALID_ARGUMENT"
        assert SECRET not in letter["message"]
        assert letter["message"]


def test_only_changed_users_are_forecast_again(
    data_set: DataSet, bundle: Path, tmp_path: Path
) -> None:
    engine = BundleSettings(bundle=bundle, top_k=None)
    log = pq.read_table(data_set.path("events.parquet")).to_pylist()
    early = [row for row in log if row["who"] != "user-7"]
    first = _job(tmp_path / "out", _log(data_set, tmp_path, early), engine, bundle)
    assert first.run().counts["forecast"] == 59
    before = read_output(tmp_path / "out")
    # Then one user has a new event, one a late one, one is new, one is gone, and the rows come in
    # another order.
    brand = {"brand": "Acme", "kind": "CATEGORY_0"}
    news = [
        *(row for row in log if row["who"] != "user-3"),
        {"who": "user-1", "day": AS_OF.date() + timedelta(days=1), **brand},
        {"who": "user-2", "day": date(2024, 3, 1), **brand},
    ]
    second = _later(first, _log(data_set, tmp_path, news[::-1]), 2)
    due = {"due_new_events": 1, "due_late_events": 1, "due_new_user": 1}
    # Events of the log between the two runs are new, too.
    moved = {row["who"] for row in news if AS_OF.date() <= row["day"] < date(2024, 3, 22)}
    due["due_new_events"] = len(moved - {"user-2", "user-7"})
    planned = second.run(dry_run=True)
    assert {key: planned.counts[key] for key in due} == due
    assert Manifest.load(tmp_path / "out") is not None
    assert read_output(tmp_path / "out").equals(before)
    done = second.run()
    assert {key: done.counts[key] for key in due} == due
    assert done.counts["forecast"] == sum(due.values())
    after = {row["user_id"]: row for row in read_output(tmp_path / "out").to_pylist()}
    kept = {row["user_id"]: row for row in before.to_pylist()}
    changed = {user for user, row in after.items() if row != kept.get(user)}
    assert changed == {*moved, "user-1", "user-2", "user-7"}
    assert after["user-3"] == kept["user-3"]
    assert all(after[user]["as_of"] == AS_OF + 2 * DAY for user in changed)
    assert second.run().is_old
    # Forecasts expire after seven days, not six; a user without input is then forgotten.
    assert _later(first, second.inputs, 6).run(dry_run=True).counts.get("due_expired", 0) == 0
    expired = _later(first, second.inputs, 7).run()
    assert expired.counts["due_expired"] == 59 - 1 - len(changed - {"user-7"})
    assert expired.counts["forgotten"] == 1
    assert "user-3" not in read_output(tmp_path / "out")["user_id"].to_pylist()


def _log(data_set: DataSet, tmp_path: Path, rows: list[dict[str, Any]]) -> Inputs:
    path = tmp_path / f"events-{len(rows)}.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return _events(data_set, path)


def _later(job: Job, inputs: Inputs, days: int) -> Job:
    return replace(job, inputs=inputs, rules=replace(job.rules, as_of=AS_OF + days * DAY))


def test_an_earlier_run_or_another_number_of_shards_is_refused(
    data_set: DataSet, bundle: Path, tmp_path: Path
) -> None:
    job = _job(tmp_path / "out", _events(data_set), BundleSettings(bundle=bundle, top_k=1), bundle)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").touch()
    make_manifest(as_of=AS_OF.isoformat(), shards=3).publish(tmp_path / "out")
    with pytest.raises(InvalidInputError, match="which is earlier"):
        _later(job, job.inputs, -1).run()
    with pytest.raises(InvalidInputError, match="users are split into 3 shards there"):
        replace(job, rules=replace(job.rules, shards=4)).run()


def test_a_killed_worker_and_driver_neither_lose_nor_repeat_users(
    contexts: dict[str, bytes], bundle: Path, tmp_path: Path
) -> None:
    """`integration.bulk_kills` is the long form."""
    many = _twenty_of_each(contexts)
    arguments = _in_eight_shards(many, bundle, tmp_path / "killed", workers=2)
    with _started(arguments) as process:
        _await_shards(tmp_path / "killed", 1)
        below = psutil.Process(process.pid).children(recursive=True)
        workers = [p for p in below if "MapWorker" in " ".join(p.cmdline())]
        workers[0].kill()
        _await_shards(tmp_path / "killed", 3)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "killed" / "_manifest.json").exists()
    done = len(list((tmp_path / "killed").glob("_runs/*/done/*.json")))
    with _started([*arguments, "--json"]) as process:
        summary, _ = process.communicate()
    assert process.returncode == 0
    assert json.loads(summary)["forecast"] == len(many)
    assert done < 8
    found = read_output(tmp_path / "killed")
    assert found["user_id"].to_pylist() == sorted(many)
    forecaster = Forecaster(bundle, threads=1)
    alone = {user: forecaster.forecast(parse_context(raw)) for user, raw in contexts.items()}
    for row in found.to_pylist():
        expected = alone[row["user_id"].rpartition("-")[0]]
        assert row["advertiser_ids"] == expected.advertiser_ids.tolist()
        assert np.allclose(row["log_probs"], expected.log_probs, atol=1e-6)
    left = {path.name for path in (tmp_path / "killed").iterdir()}
    assert left == {".lock", "_manifest.json", "_manifests", "_versions"} | {
        f"shard-{shard:04d}.parquet" for shard in range(8)
    }


def test_sigterm_ends_ray_too(contexts: dict[str, bytes], bundle: Path, tmp_path: Path) -> None:
    arguments = _in_eight_shards(_twenty_of_each(contexts), bundle, tmp_path / "out", workers=1)
    with _started(arguments) as process:
        _await_shards(tmp_path / "out", 1)
        below = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(60)
    assert process.returncode == 128 + signal.SIGTERM
    assert len(below) > 3  # Ray's processes and a worker
    assert not psutil.wait_procs(below, timeout=20)[1]


def _twenty_of_each(contexts: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{user}-{copy}": raw for user, raw in contexts.items() for copy in range(20)}


def _in_eight_shards(
    contexts: dict[str, bytes], bundle: Path, output: Path, *, workers: int
) -> list[str]:
    """Write the users beside the output, and return the options of a run."""
    inputs = _users(output.with_name("users.parquet"), contexts)
    arguments = ["--users", str(inputs.users), "--bundle", str(bundle), "--workers", str(workers)]
    return [*arguments, "--as-of", "2024-03-20", "--shards", "8", "--output", str(output)]


def _started(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*BULK, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def _await_shards(output: Path, count: int) -> None:
    await_true(lambda: len(list(output.glob("_runs/*/done/*.json"))) >= count)
