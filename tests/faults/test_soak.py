"""The soak's command, for seconds: what is asked, what is measured, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adprior_runtime.cli import main
from adprior_runtime.contract import ADVERTISER_DECODER, LLM_ENGINE, PRIOR_HEAD, TOKENIZER
from faults.traffic import DEMO

pytestmark = pytest.mark.triton


def test_a_soak_measures_every_process(
    demo_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    users = [str(path) for path in sorted((DEMO / "users").glob("*.json"))]
    plot = tmp_path / "soak.png"
    arguments = ["bench", "soak", "--repository", str(demo_repository), "--users", *users]
    arguments += ["--minutes", "0.06", "--warm-up-minutes", "0.01", "--plot", str(plot), "--json"]
    status = main(arguments)
    document = json.loads(capsys.readouterr().out)
    # So short a time says nothing of leaks.
    assert status == (0 if document["holds"] else 1)
    processes = [row["process"] for row in document["memory"]]
    models = sorted([TOKENIZER, LLM_ENGINE, ADVERTISER_DECODER, PRIOR_HEAD])
    assert processes[0] == "tritonserver"
    assert sorted(processes[1:-1]) == models
    assert processes[-1] == "all"
    assert document["calls"] > 10
    answered = {row["kind"] for row in document["outcomes"] if row["ended"] == "answered"}
    assert {"retrieval", "live ranking"} <= answered
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--minutes", "2"], "--warm-up-minutes 3: expected less than --minutes 2"),
        (["--users", "{nowhere}"], "nowhere: No such file"),
        (["--users", "{text}"], "text: not JSON"),
    ],
)
def test_bad_options_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], expected: str
) -> None:
    (tmp_path / "text").write_text("{")
    named = {"nowhere": tmp_path / "nowhere", "text": tmp_path / "text"}
    given = [option.format(**named) for option in options]
    users = [] if "--users" in given else ["--users", str(tmp_path / "text")]
    arguments = ["bench", "soak", "--repository", str(tmp_path), *users, *given]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert expected in told
    assert told.count("\n") == 1
