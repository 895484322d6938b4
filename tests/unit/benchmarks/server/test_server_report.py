from __future__ import annotations

import json
from pathlib import Path

from adprior_bench.server.load import Mode
from adprior_bench.server.server_report import make_report, show_report
from unit.benchmarks.server.conftest import MakeRow


def test_a_report_is_written_with_its_plots(tmp_path: Path, make_row: MakeRow) -> None:
    ranges = {"throughput": [24.0, 26.0]}
    failed = {"scenario": "retrieval", "without_figures": 2, "problem": "it saw nothing."}
    rows = [
        make_row(Mode.CLOSED, 1, 20.0, in_process_throughput=22.0),
        make_row(Mode.CLOSED, 4, 25.0, in_process_throughput=23.0, ranges=ranges),
        make_row(Mode.OPEN, 12.5, 12.5, share_of_saturation=0.5),
        make_row(Mode.CLOSED, 1, None, **failed),
    ]
    about = {
        "bundle_id": "0123456789ab", "perf_analyzer": "9.9", "users": "made up", "requests": 12,
        "seconds": 1.0, "rounds": 1,
        "machine": {"processor": "abacus", "cpus": 2, "load_average": 0.1, "onnxruntime": "1"},
    }  # fmt: skip
    output = tmp_path / "report"
    text = show_report(make_report(rows, about), output)
    assert "25.0 [24.0, 26.0]" in text
    assert text.splitlines()[-1] == f"All plots: in {output / 'report.html'}"
    words = " ".join(text.split())
    assert "12 different requests of users (made up); rounds: 1 of 1 s." in words
    assert "Rounds without figures: retrieval, 1 in flight (2): it saw nothing." in words
    assert {path.name for path in output.iterdir()} == {
        "report.html", "report.json", "report.md", "throughput-live-ranking.png",
        "latency-live-ranking.png", "steps-live-ranking.png", "throughput-retrieval.png", "cpu.png",
    }  # fmt: skip
    assert json.loads((output / "report.json").read_text())["data"]["rows"] == rows
