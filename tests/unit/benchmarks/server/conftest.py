from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adprior_bench.server.load import Mode
from adprior_bench.server.measurement import ROW_KEYS
from adprior_bench.server.perf_analyzer import PerfAnalyzer
from adprior_bench.server.workload import UserRequest, read_requests
from adprior_client import Advertiser, Forecast
from adprior_runtime.bundle import Bundle
from adprior_runtime.server.model_counters import STEPS

MakeRow = Callable[..., dict[str, Any]]

_FORECAST = Forecast(
    advertisers=(
        Advertiser(advertiser_id=23, name="", log_prob=-1.5),
        Advertiser(advertiser_id=214, name="", log_prob=-2.0),
    ),
    missing_mass=0.5,
    exact=True,
    bundle_id="",
)

# 150 requests, one each 10 ms, answered after 1, 2, ... 150 ms, in windows of two seconds in all.
_SCRIPT = """\
#!/usr/bin/env python3
import json, sys
arguments = sys.argv[1:]
if "--version" in arguments:
    sys.exit(print("Perf Analyzer Version 9.9 (commit none)", file=sys.stderr))
if "0.125" in " ".join(arguments):
    print("error: Failed to maintain requested inference load.")
    sys.exit(99)
path = arguments[arguments.index("--profile-export-file") + 1]
second = 10**9
requests = [
    {"timestamp": 5 * second + i * second // 100,
     "response_timestamps": [5 * second + i * second // 100 + (i + 1) * 10**6]}
    for i in range(150)
]
experiment = {"requests": requests, "window_boundaries": [5 * second, 6 * second, 7 * second]}
document = json.dumps({"experiments": [experiment]}).encode()
open(path, "wb").write(document[:-1] + b', "raw": "\\xff\\xa0"}')
"""


@pytest.fixture
def analyzer(tmp_path: Path) -> PerfAnalyzer:
    """A stand-in for perf_analyzer that exports known times, and fails at 0.125 requests/s."""
    binary = tmp_path / "perf_analyzer"
    binary.write_text(_SCRIPT)
    binary.chmod(0o755)
    return PerfAnalyzer(binary=binary, version="stand-in")


@pytest.fixture(scope="session")
def requests(tiny_bundle: Path) -> list[UserRequest]:
    return read_requests(Bundle.open(tiny_bundle), 12, None, None, None)


@pytest.fixture(scope="session")
def stored(requests: list[UserRequest]) -> list[UserRequest]:
    return [replace(each, forecast=_FORECAST) for each in requests]


@pytest.fixture(scope="session")
def make_row() -> MakeRow:
    """Return a function that makes a row of a live ranking."""

    def make(mode: Mode, value: float, throughput: float | None, **more: Any) -> dict[str, Any]:
        return {
            **dict.fromkeys(ROW_KEYS),
            "scenario": "live_ranking", "mode": str(mode), "concurrency_or_rate": value,
            "throughput": throughput, "p50_ms": 10 * value, "p95_ms": 20.0, "p99_ms": 30.0,
            "errors": 0, "without_figures": 0, "requests": 100, "cpu_s_per_request": 0.04,
            "ranges": {}, "cpu_s_by_process": {"tritonserver": 0.001, "tokenizer": 0.002},
            "step_ms": {"tokenizer": dict.fromkeys(STEPS, 0.25)}, "batch_size": {"tokenizer": 1.5},
            **more,
        }  # fmt: skip

    return make
