from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from adprior_bench.bulk.population import read_recent_users, write_active_day, write_population
from adprior_bench.bulk.sizing import ASSUMPTIONS, MACHINES, Machine, size_cluster
from adprior_bench.commands.bulk import choose_day, report_text
from adprior_build.data.column_map import ColumnMap, EventColumns
from adprior_bulk.inputs.pieces import Inputs, Source, list_pieces
from adprior_bulk.inputs.staging import stage_piece
from adprior_bulk.output.manifest import Manifest
from adprior_bulk.run.due_users import Rules
from adprior_bulk.run.shard_plan import ShardPlan
from adprior_bulk.run.workers import ShardWorker, read_answer
from adprior_runtime.errors import InvalidInputError

AS_OF = datetime(2024, 3, 20, tzinfo=UTC)
COLUMNS = ColumnMap(events=EventColumns(user="who", time="day", advertiser="brand"))


@pytest.fixture
def events(tmp_path: Path) -> Path:
    rows = [
        {
            "who": f"u{n % 20}",
            "day": date(2024, 1, 1) + timedelta(days=n % 78),
            "brand": f"b{n % 7}",
        }
        for n in range(200)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "events.parquet")
    return tmp_path / "events.parquet"


def test_only_active_users_of_a_made_up_population_are_due(events: Path, tmp_path: Path) -> None:
    inputs, output = write_population(
        tmp_path,
        read_recent_users(events, None, COLUMNS, AS_OF),
        users=300,
        shards=3,
        active_share=0.05,
        as_of=AS_OF,
        bundle_id="b",
    )
    previous = Manifest.load(output)
    assert previous is not None
    assert sum(file.rows for file in previous.files) == 300
    plan = ShardPlan(
        output=output,
        version="v",
        inputs=Inputs(users=inputs),
        rules=Rules(
            as_of=AS_OF,
            max_age=timedelta(days=7),
            lateness=timedelta(days=30),
            bundle_id="b",
            shards=3,
        ),
        previous={shard: previous.files_of(shard) for shard in range(3)},
    )
    plan.staged.mkdir(parents=True)
    for piece in list_pieces(Source(inputs)):
        stage_piece(piece, plan.staged, 3)
    records = [read_answer(ShardWorker(plan, None)(str(shard))) for shard in range(3)]
    counts = [record.counts for record in records if record is not None]
    assert sum(count["users"] for count in counts) == 300
    assert sum(count.get("due_new_events", 0) for count in counts) == 15
    assert sum(count["skipped"] for count in counts) == 285


def test_an_active_day_adds_an_event_for_a_share_of_the_users(events: Path, tmp_path: Path) -> None:
    later = write_active_day(events, COLUMNS, tmp_path / "later", share=0.25, as_of=AS_OF, seed=1)
    new = ds.dataset(later, format="parquet").to_table().to_pylist()[200:]
    assert len({row["who"] for row in new}) == len(new) == 5
    assert {row["day"] for row in new} == {AS_OF.date()}


def test_the_day_after_the_forecasts_is_not_in_the_future(tmp_path: Path) -> None:
    columns = ColumnMap(events=EventColumns(user="u", time="t", advertiser="a"))
    today = datetime.now(UTC).date()

    def choose(last: date, given: date | None = None) -> date:
        path = tmp_path / "log.parquet"
        pq.write_table(pa.table({"u": ["u"], "t": [last], "a": ["Acme"]}), path)
        return choose_day(given, path, columns).date()

    day = timedelta(days=1)
    assert choose(date(2024, 5, 31)) == date(2024, 6, 1)
    assert choose(today) == choose(today - day) == choose(today - 2 * day) == today - day
    assert choose(today, today - day) == today - day
    with pytest.raises(InvalidInputError, match="at the latest"):
        choose(today, today)


def test_a_cluster_is_just_large_enough() -> None:
    machine = Machine(name="m", cores=17, memory_gb=32, price_per_hour=1.0)
    sized = size_cluster(users=20e6, users_per_s=50.0, rss_mb=400.0, hours=6.0, machine=machine)
    assert sized["workers_per_machine"] == 16
    rate = 0.9 * 50 * 16 * sized["machines"]
    assert sized["hours"] == pytest.approx(20e6 / rate / 3600)
    assert sized["hours"] <= 6
    assert 20e6 / (rate / sized["machines"] * (sized["machines"] - 1)) / 3600 > 6
    assert sized["cost_per_day"] == pytest.approx(sized["machines"] * sized["hours"])
    # Little memory limits the workers.
    tight = size_cluster(users=1e6, users_per_s=50.0, rss_mb=4096.0, hours=6.0, machine=machine)
    assert tight["workers_per_machine"] == 5


def test_the_report_names_every_assumption() -> None:
    sized = [
        size_cluster(users=1e6, users_per_s=50.0, rss_mb=300.0, hours=6.0, machine=machine)
        for machine in MACHINES
    ]
    report = {"rows": [], "sizing": sized, "assumptions": ASSUMPTIONS}
    text = report_text(report, daily=1e6, hours=6.0)
    assert "1,000,000 users a day within 6 hours" in text
    assert all(assumed in text for assumed in ASSUMPTIONS)
    assert all(machine.name in text for machine in MACHINES)
