"""docs/ranking_log.md: from logged requests to a fitted head and its comparison, as it stands."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from adprior_bench.quality.ranking.logged_ranking import measure_log
from adprior_build.head.ranking_log import COLUMNS
from support.page_output import strip_figures
from support.paths import ROOT
from support.processes import run
from support.servers import Served

PAGE = (ROOT / "docs" / "ranking_log.md").read_text(encoding="utf-8")
LOGGING, JOINING = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
FITTING, COMPARING = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
FITTED, COMPARED = re.findall(r"\n\n```\n(.*?)```", PAGE, re.DOTALL)
ROWS, REQUESTS = 240, 60


@pytest.mark.triton
def test_the_pages_steps_lead_to_a_head(
    tiny_bundle: Path, tiny_served: Served, tmp_path: Path
) -> None:
    environment = os.environ | {
        "URL": tiny_served.server.grpc_address,
        "BUNDLE": str(tiny_bundle),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    commands = [[sys.executable, "-W", "error", "-c", code] for code in (LOGGING, JOINING)]
    commands += [["bash", "-eu", "-c", code] for code in (FITTING, COMPARING)]
    outputs = []
    for command in commands:
        done = run(*command, cwd=tmp_path, env=environment, timeout=240)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    log = pq.read_table(tmp_path / "labelled.parquet")
    assert log.num_rows == ROWS
    assert log["source"].unique().to_pylist() == ["live"]
    assert log["applied"].unique().to_pylist() == [False]  # shadow mode
    assert 0 < sum(log["label"].to_pylist()) < ROWS / 2
    assert (tmp_path / "repository" / "prior_head" / "config.pbtxt").is_file()
    for printed, shown in ((outputs[2], FITTED), (outputs[3], COMPARED)):
        assert list(map(strip_figures, printed.splitlines())) == list(
            map(strip_figures, shown.splitlines())
        )
    assert measure_log(tmp_path / "labelled.parquet")["requests"] == REQUESTS


def test_the_page_names_every_column_that_is_needed() -> None:
    table = "\n".join(line for line in PAGE.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`(\w+)`", table))
    assert {*COLUMNS} - {"label"} <= named
