from __future__ import annotations

import json
from typing import Any

import pytest

from adprior_runtime.cli import main

QUICK = ["--servers", "1", "--clients", "2", "--rate", "30", "--seconds", "2.5"]
QUICK += ["--service-ms", "2", "--deadline-ms", "1000", "--candidates", "3"]


def measured(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main(["bench", "zone-loss", *QUICK, *options, "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report | {row["phase"]: row for row in report["phases"]}


def test_the_other_zones_answer_the_calls_of_a_killed_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = measured(capsys, "--zones", "2")
    assert [row["calls"] > 0 for row in found["phases"]] == [True] * 4
    assert [row["without_forecast"] for row in found["phases"]] == [0] * 4
    assert found["last_fallback_s"] is None
    assert found["load_without_zone"] == 2 * found["load_before"]


@pytest.mark.parametrize("fault", ["killed", "silent"])
def test_without_any_zone_calls_fall_back_until_it_returns(
    capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    found = measured(capsys, "--zones", "1", "--fault", fault)
    # Only calls that were under way when the zone was lost.
    assert found["before"]["without_forecast"] < 0.1 * found["before"]["calls"]
    away = found["zone away"]
    assert away["without_forecast"] == away["calls"] > 0
    assert found["load_without_zone"] is None
    back = found["zone back"]
    assert back["calls"] - back["without_forecast"] > 0
