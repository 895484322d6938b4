from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adprior_bulk.inputs.pieces import Inputs, list_pieces
from adprior_bulk.output.manifest import DataFile
from adprior_bulk.output.tables import FORECASTS, rows_to_table, write_table
from adprior_bulk.run.due_users import Rules
from adprior_bulk.run.shard_plan import Record, ShardPlan
from adprior_bulk.run.summary import Summary, sum_counts
from adprior_bulk.run.user_forecaster import ForecasterSettings, UserForecaster
from adprior_bulk.run.workers import ShardWorker, StagingWorker, read_answer
from adprior_runtime.errors import AdpriorError, ArtefactError

AS_OF = datetime(2024, 5, 1, tzinfo=UTC)


class Unready(ForecasterSettings):
    """An engine that cannot be opened."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    name = "unready"

    def open(self) -> UserForecaster:
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
    with pytest.raises(
        AdpriorError, match=r"a worker failed: ValueError at test_workers"
    ) as caught:
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
    counts = sum_counts(records)
    assert (counts["users"], counts["due_new_user"], counts["dead_letters"]) == (3, 1, 2)


def test_forecasts_from_the_future_are_made_anew_or_dropped(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    far, soon = now + timedelta(60 * 365), now + timedelta(days=7)
    contexts = ['{"as_of":"2024-05-01"}', f'{{"as_of":"{far.isoformat()}"}}']
    users = pa.table({"user_id": ["again", "ahead"], "context": contexts})
    pq.write_table(users, tmp_path / "users.parquet")
    previous = [
        (user, as_of, [7], [-0.5], True, 0.1, "b", None, far + timedelta(7), as_of, 0)
        for user, as_of in (("again", far), ("gone", far), ("kept", now))
    ]
    previous[2] = (*previous[2][:8], soon, *previous[2][9:])
    write_table(rows_to_table(previous, FORECASTS), tmp_path / "before.parquet")
    plan = replace(_plan(tmp_path), previous={0: ["before.parquet"]})
    plan = replace(plan, rules=replace(plan.rules, shards=1))
    plan.staged.mkdir(parents=True)
    pieces = list_pieces(
        "users", tmp_path / "users.parquet", user="user_id", columns=(), texts=("user_id",)
    )
    assert read_answer(StagingWorker(pieces, plan.staged, 1)("0")) is None
    record = read_answer(ShardWorker(plan, None)("0"))
    assert isinstance(record, Record)
    assert record.counts == {
        "users": 2,
        "due_from_future": 1,
        "dead_letters": 1,
        "carried": 1,
        "forgotten": 0,
        "from_future": 1,
    }


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
    summary = Summary(
        counts=sum_counts([record, replace(record, shard=1)]),
        now=[record],
        wall_s=20.0,
        version="v",
        price_per_hour=3.6,
    )
    told = summary.to_json()
    assert (told["users"], told["forecast"], told["users_per_s"]) == (200, 100, 10.0)
    # The speed is that of this command's forecasts: 50 in the 5 s of its only shard.
    assert (told["forecast_now"], told["working_s"], told["wall_s"]) == (50, 5.0, 20.0)
    rows = dict(line.rsplit(maxsplit=1) for line in summary.to_text().splitlines() if " " in line)
    assert rows["forecasts per second"] == "10.0"
    assert told["exact_fraction"] == 0.8
    # 50 forecasts in 20 s at 0.001 a second.
    assert told["cost_per_million_users"] == pytest.approx(400.0)
    assert "cost per million forecasts    400.00" in summary.to_text()
    nothing = Summary(counts=Counter(), wall_s=0, version="", price_per_hour=1.0)
    assert nothing.to_json()["users_per_s"] is None
    assert nothing.to_json()["cost_per_million_users"] is None
