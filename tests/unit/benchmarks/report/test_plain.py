from __future__ import annotations

import json
from typing import Any

import numpy as np

from adprior_bench.quality.intervals import Estimate
from adprior_bench.report.plain import plain
from support.quality_report import GAIN, NOTHING, report


def test_a_plain_report_survives_json() -> None:
    shown: dict[str, Any] = plain(report())
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert plain(shown) == shown


def test_values_become_those_of_json() -> None:
    assert plain(GAIN) == {"value": 0.0123, "low": -0.0004, "high": 0.025}
    assert plain([NOTHING, float("nan"), np.float64(0.5), np.int64(3), True]) == [
        None, None, 0.5, 3, True,
    ]  # fmt: skip
    assert plain({"a": np.array([1.0, np.inf])}) == {"a": [1.0, None]}
    half = Estimate(value=1.0, low=float("nan"), high=2.0)
    assert plain(half) == {"value": 1.0, "low": None, "high": 2.0}
