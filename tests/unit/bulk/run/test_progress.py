from __future__ import annotations

import re

import pytest

from adprior_bulk.run.progress import Pace, open_bar, show_pace
from adprior_bulk.run.shard_plan import ShardRecord
from adprior_bulk.run.summary import Summary, sum_counts


def _record(shard: int, began_at: float, ended_at: float) -> ShardRecord:
    return ShardRecord(
        shard=shard,
        file=None,
        dead_letters=None,
        counts={"users": 9, "forecast": 30},
        began_at=began_at,
        ended_at=ended_at,
    )


def test_bar_summary_and_json_show_the_same_rate(capsys: pytest.CaptureFixture[str]) -> None:
    """Two workers begin 100 s after the command."""
    records = [_record(0, 100.0, 104.0), _record(1, 101.0, 106.0)]
    with open_bar("forecast", total=8, waiting=8, unit="shard", quiet=False) as bar:
        for done in range(1, 3):
            show_pace(bar, Pace.of(records[:done]), 8 - done)
        bar.refresh()
    shown = capsys.readouterr().err.split("\r")[-1]
    assert "2/8 shards" in shown
    # 60 forecasts in 6 s; 6 more shards of 3 s each.
    assert shown.rstrip().endswith(", 60 forecasts, 10.0/s, 00:18 left]")
    assert re.findall(r"[\d.]+/s|s/shard", shown) == ["10.0/s"]
    summary = Summary(counts=sum_counts(records), now=records, wall_s=200.0, version="v")
    assert summary.to_json()["users_per_s"] == 10.0
    assert re.search(r"forecasts per second +10\.0\n", summary.to_text())


def test_without_records_there_is_no_rate() -> None:
    pace = Pace.of([])
    assert (pace.forecasts_per_s, pace.left_s(5)) == (None, 0.0)
