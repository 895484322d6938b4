from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from adprior_client import RedisForecasts
from support.publisher import Publisher
from support.redis_server import NOW, needs_redis, row, write_forecasts

pytestmark = needs_redis


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"user_id": None}, "row 1: user_id is null"),
        ({"as_of": None}, "row 1: as_of is null"),
        ({"exact": None}, "row 1: exact is null"),
        ({"missing_mass": 1.5}, "row 1: missing_mass: found 1.5, expected 0 to 1"),
        ({"log_probs": [-1.0]}, "row 1: log_probs: found 1 values for 3 advertisers"),
        ({"log_probs": [-1.0, None, -2.0]}, "row 1: log_probs holds a null"),
        ({"log_probs": [-1.0, float("nan"), -2.0]}, "row 1: log_probs: expected finite"),
        ({"log_probs": [0.5, -1.0, -2.0]}, "row 1: log_probs: expected finite"),
        ({"advertiser_ids": [7, 8, 7]}, "row 1: advertiser_ids: an advertiser is named twice"),
    ],
)
def test_an_invalid_row_stops_the_publication(
    publisher: Publisher, yesterday: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    publisher("--forecasts", yesterday)
    before = publisher.server.client().dbsize()
    bad = write_forecasts(tmp_path / "bad.parquet", [row("a-user"), row("another") | changed])
    error = publisher.error("--forecasts", bad)
    assert f"bad.parquet: {message}" in error
    assert "another" not in error
    assert publisher.server.client().dbsize() == before
    assert publisher.first_advertisers() == {100}


def test_a_row_dated_in_the_future_is_left_out_and_counted(
    publisher: Publisher, tmp_path: Path
) -> None:
    ahead = NOW + timedelta(days=60 * 365)
    rows = [row("both", 7), row("both", 9, as_of=ahead), row("alone", 9, as_of=ahead)]
    path = write_forecasts(tmp_path / "f.parquet", rows)
    done = publisher("--forecasts", path)
    assert (done["users"], done["rows"], done["from_future"], done["replaced"]) == (1, 3, 2, 0)
    with RedisForecasts(publisher.server.url, timeout_s=10) as source:
        found = source.find("both")
        assert found is not None
        assert found.advertisers[0].advertiser_id == 7
        assert source.find("alone") is None
    publisher.server.client().flushall()
    summary = publisher.text("--forecasts", path)
    assert re.search(r"rows dated in the future, left out +2\n", summary)
    alone = write_forecasts(tmp_path / "g.parquet", rows[1:])
    error = publisher.error("--forecasts", alone)
    assert "no forecast in these files (2 rows lie in the future" in error
