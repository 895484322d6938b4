from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adprior_bulk.engines import Engine, EngineSettings
from adprior_bulk.manifest import DataFile
from adprior_bulk.settings import Inputs, Rules
from adprior_bulk.shard import Record, ShardPlan
from adprior_bulk.staging import list_pieces
from adprior_bulk.summary import Summary
from adprior_bulk.workers import ShardWorker, StagingWorker, read_answer
from adprior_runtime.errors import AdpriorError, ArtefactError

AS_OF = datetime(2024, 5, 1, tzinfo=UTC)


class Unready(EngineSettings):
    """An engine that cannot be opened."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    @property
    def name(self) -> str:
        return "unready"

    def open(self) -> Engine:
        raise self._error


def _plan(tmp_path: Path) -> ShardPlan:
    rules = Rules(
        as_of=AS_OF, max_age=timedelta(7), lateness=timedelta(30), bundle_id="b", shards=2
    )
    inputs = Inputs(users=tmp_path / "users.parquet")
    return ShardPlan(output=tmp_path, version="v", inputs=inputs, rules=rules, previous={})


def test_errors_of_ours_come_back_as_they_are_and_others_quote_nothing(tmp_path: Path) -> None:
    broken = ShardWorker(_plan(tmp_path), Unready(ArtefactError("bundle: corrupt")))
    with pytest.raises(ArtefactError, match=r"^bundle: corrupt$"):
        read_answer(broken("0"))
    foreign = ShardWorker(_plan(tmp_path), Unready(ValueError("a user's secret")))
    with pytest.raises(AdpriorError, match=r"a worker failed: ValueError at test_bulk_w") as caught:
        read_answer(foreign("0"))
    assert "secret" not in str(caught.value)
    full = ShardWorker(_plan(tmp_path), Unready(OSError(28, "No space left on device")))
    with pytest.raises(AdpriorError, match="No space left on device"):
        read_answer(full("0"))


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path) -> None:
    table = pa.table(
        {"user_id": ["a", "b", "c"], "context": ['{"as_of":"2024-05-01"}', "poison", "{}"]}
    )
    pq.write_table(table, tmp_path / "users.parquet")
    plan = _plan(tmp_path)
    plan.staged.mkdir(parents=True)
    pieces = list_pieces(
        "users", tmp_path / "users.parquet", user="user_id", columns=(), texts=("user_id",)
    )
    assert read_answer(StagingWorker(pieces, plan.staged, 2)("0")) is None
    before = sorted(tmp_path.rglob("*"))
    worker = ShardWorker(plan, None)
    records = [record for k in "01" if (record := read_answer(worker(k))) is not None]
    assert sorted(tmp_path.rglob("*")) == before
    counts = Summary.of(
        records, records, engine="none", workers=1, wall_s=1.0, version="", price_per_hour=None
    ).counts
    assert (counts["users"], counts["due_new_user"], counts["dead_letters"]) == (3, 1, 2)


def test_a_record_is_read_back(tmp_path: Path) -> None:
    file = DataFile(path="p", shard=3, rows=2)
    record = Record(shard=3, file=file, dead_letters=None, counts={"users": 2})
    assert Record.load(tmp_path / "none") is None
    record.write(tmp_path / "r.json")
    assert Record.load(tmp_path / "r.json") == record


def test_what_a_run_costs() -> None:
    record = Record(
        shard=0,
        file=None,
        dead_letters=None,
        counts={"users": 100, "forecast": 50, "exact": 40},
        began_at=10.0,
        ended_at=15.0,
        peak_rss_mb=300.0,
    )
    summary = Summary.of(
        [record, replace(record, shard=1)],
        [record],
        engine="in-process",
        workers=2,
        wall_s=20.0,
        version="v",
        price_per_hour=3.6,
    )
    told = summary.to_json()
    assert (told["users"], told["forecast"], told["users_per_s"]) == (200, 100, 10.0)
    assert told["exact_fraction"] == 0.8
    # 50 forecasts in 20 s at 0.001 a second.
    assert told["cost_per_million_users"] == pytest.approx(400.0)
    assert "cost of a million forecasts   400.00" in summary.to_text()
    nothing = Summary.of([], [], engine="x", workers=1, wall_s=0, version="", price_per_hour=1.0)
    assert nothing.to_json()["users_per_s"] is None
    assert nothing.to_json()["cost_per_million_users"] is None
