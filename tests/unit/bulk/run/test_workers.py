from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adprior_bulk.inputs.pieces import Inputs, input_pieces
from adprior_bulk.output.manifest import DataFile
from adprior_bulk.output.tables import FORECASTS, rows_to_table, write_table
from adprior_bulk.run.bundle_forecaster import BundleSettings
from adprior_bulk.run.due_users import Rules
from adprior_bulk.run.shard_plan import ShardPlan, ShardRecord
from adprior_bulk.run.summary import sum_counts
from adprior_bulk.run.user_forecaster import ForecasterSettings, Task, UserForecaster
from adprior_bulk.run.workers import ShardWorker, StagingWorker, read_answer
from adprior_client.user_context import CheckedContext
from adprior_runtime.errors import AdpriorError, ArtefactError, DeviceLostError
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.prompt.context import parse_context
from support.interests import add_interests

AS_OF = datetime(2024, 5, 1, tzinfo=UTC)


class Broken(ForecasterSettings):
    """A forecaster that cannot be opened."""

    name = "broken"

    def __init__(self, error: Exception) -> None:
        self._error = error

    def open(self) -> UserForecaster:
        raise self._error


def _plan(directory: Path, contexts: dict[str, str], **changes: Any) -> ShardPlan:
    """Write users and stage them in one shard."""
    table = {"user_id": list(contexts), "context": list(contexts.values())}
    pq.write_table(pa.table(table), directory / "users.parquet")
    inputs = Inputs(users=directory / "users.parquet")
    rules = Rules(as_of=AS_OF, max_age=timedelta(7), lateness=timedelta(30), bundle_id="b")
    plan = ShardPlan(output=directory, version="v", inputs=inputs, rules=rules, previous={})
    plan.staged.mkdir(parents=True)
    assert read_answer(StagingWorker(input_pieces(inputs), plan.staged, 1)("0")) is None
    return replace(plan, **changes)


def test_our_errors_come_back_and_foreign_ones_are_not_quoted(tmp_path: Path) -> None:
    plan = _plan(tmp_path, {})
    for error, kind, message in (
        (ArtefactError("bundle: corrupt"), ArtefactError, r"^bundle: corrupt$"),
        (ValueError("a secret"), AdpriorError, r"a worker failed: ValueError at test_workers"),
        (OSError(28, "No space left on device"), AdpriorError, "No space left on device"),
    ):
        with pytest.raises(kind, match=message) as caught:
            read_answer(ShardWorker(plan, Broken(error))("0"))
        assert "secret" not in str(caught.value)


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path) -> None:
    plan = _plan(tmp_path, {"a": '{"as_of":"2024-05-01"}', "b": "poison", "c": "{}"})
    before = sorted(tmp_path.rglob("*"))
    record = read_answer(ShardWorker(plan, None)("0"))
    assert record is not None
    assert sorted(tmp_path.rglob("*")) == before
    counts = sum_counts([record])
    assert (counts["users"], counts["due_new_user"], counts["dead_letters"]) == (3, 1, 2)


def test_forecasts_dated_in_the_future_are_made_again_or_dropped(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    far, soon = now + timedelta(60 * 365), now + timedelta(days=7)
    previous = [
        (user, as_of, [7], [-0.5], True, 0.1, "b", None, expires_at, as_of, 0)
        for user, as_of, expires_at in (
            ("again", far, far + timedelta(7)),
            ("gone", far, far + timedelta(7)),
            ("kept", now, soon),
        )
    ]
    write_table(rows_to_table(previous, FORECASTS), tmp_path / "before.parquet")
    contexts = {"again": '{"as_of":"2024-05-01"}', "ahead": f'{{"as_of":"{far.isoformat()}"}}'}
    plan = _plan(tmp_path, contexts, previous={0: ["before.parquet"]})
    record = read_answer(ShardWorker(plan, None)("0"))
    assert record is not None
    assert record.counts == {
        "users": 2,
        "due_from_future": 1,
        "dead_letters": 1,
        "carried": 1,
        "forgotten": 0,
        "from_future": 1,
    }


def test_a_run_that_asks_for_interests_has_their_columns(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = add_interests(tiny_bundle, tmp_path / "interested")
    soon = datetime.now(UTC) + timedelta(days=7)
    kept = ("kept", AS_OF, [7], [-0.5], True, 0.1, "b", None, soon, AS_OF, 0)
    write_table(rows_to_table([kept], FORECASTS), tmp_path / "before.parquet")
    plan = _plan(tmp_path, {"new": '{"as_of":"2024-05-01"}'}, previous={0: ["before.parquet"]})
    plan = replace(plan, rules=replace(plan.rules, interest_k=3))
    plan.record_path(0).parent.mkdir(parents=True, exist_ok=True)
    record = read_answer(
        ShardWorker(plan, BundleSettings(bundle=bundle, top_k=2, interest_k=3))("0")
    )
    assert record is not None
    assert record.file is not None
    table = pq.read_table(tmp_path / record.file.path, partitioning=None)
    assert table.column_names == [*FORECASTS.names, "interest_ids", "interest_log_probs"]
    forecaster = Forecaster(bundle, threads=1)
    prompt = forecaster.prompt_ids(b'{"as_of":"2024-05-01"}')
    _, expected = forecaster.forecast_interests(prompt, 2, 3)
    assert len(expected.ids) == 3
    assert table["interest_ids"].to_pylist() == [None, expected.ids.tolist()]
    assert table["interest_log_probs"].to_pylist() == [None, expected.log_probs.tolist()]


def test_a_lost_gpu_refuses_no_user(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forecaster = BundleSettings(bundle=tiny_bundle, top_k=2).open()
    context = parse_context(b'{"as_of":"2024-05-01"}')
    tasks = [Task(user_id=name, raw=CheckedContext(), context=context) for name in ("a", "b")]
    assert len(list(forecaster.forecast(tasks))) == 2

    def lose(*_: object) -> None:
        raise DeviceLostError("device cuda: an illegal memory access")

    monkeypatch.setattr(Forecaster, "forecast_prompt", lose)
    with pytest.raises(DeviceLostError, match=r"^device cuda: an illegal memory access$"):
        list(forecaster.forecast(tasks))


def test_a_record_is_read_back(tmp_path: Path) -> None:
    file = DataFile(path="p", shard=3, rows=2)
    record = ShardRecord(shard=3, file=file, dead_letters=None, counts={"users": 2})
    assert ShardRecord.load(tmp_path / "none") is None
    record.write(tmp_path / "r.json")
    assert ShardRecord.load(tmp_path / "r.json") == record
