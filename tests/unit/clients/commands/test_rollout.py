from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from adprior_client.commands import rollout
from adprior_client.rollout.options import page_url
from adprior_client.rollout.switch import Rollout, State, Switch
from adprior_runtime.errors import AdpriorError
from support.client_calls import run_command
from support.fake_triton_with_metrics import FakeTritonWithMetrics, running_with_metrics
from support.outcome_logs import write_outcomes
from support.processes import await_true

RUNNING = Rollout(state=State.RUNNING, stable=("a:1",), canary=("b:1",), share=0.05)
QUICK = ("--hold", "0.2s", "--longest", "0.4s", "--look", "0.05s")
PROGRAM = """
import signal
import sys
from adprior_runtime.cli import run_command
sys.exit(run_command("adprior rollout", "adprior_client.commands.rollout", sys.argv[1:]))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "servers"


def _run(path: Path, *options: str) -> int:
    return run_command(rollout, "--servers", str(path), *options)


def _metrics(*servers: FakeTritonWithMetrics) -> list[str]:
    return ["--metrics", *(f"{server.url}={server.metrics_address}" for server in servers)]


def test_without_requests_nothing_is_promoted(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_with_metrics("blue", "green") as servers:
        stable, canary = servers
        options = ["--stable", stable.url, "--canary", canary.url, *_metrics(*servers), *QUICK]
        assert _run(path, *options) == 4
        shown = capsys.readouterr().out
        assert shown.startswith("bundle blue is stable, bundle green is the canary\n\n1.0 % of the")
        assert "\nrolled back since 2" in shown
        assert shown.endswith(f"servers: {stable.url}\n")
        assert Switch(path).read()[0] is not None
        # The same command says so; it does not try a bad canary twice.
        text = path.read_text()
        assert _run(path, *options) == 3
        assert path.read_text() == text
        assert "undecided" in capsys.readouterr().out
        assert _run(path, "--again", *_metrics(*servers), *QUICK) == 4


def test_outcomes_that_do_not_fit_roll_back(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[tuple[str | None, float | None]] = [("blue", 0), ("blue", 1), ("green", 1)]
    log = write_outcomes(path.with_name("log.parquet"), rows * 400)
    with running_with_metrics("blue", "green") as servers:
        stable, canary = servers
        options = ["--stable", stable.url, "--canary", canary.url, *_metrics(*servers), *QUICK]
        assert _run(path, *options, "--log", str(log), "--json") == 3
    printed = json.loads(capsys.readouterr().out)
    assert printed["reason"] == "broken: calibration"
    rule = printed["steps"][0]["rules"][-1]
    assert (rule["rule"], rule["stable"], rule["canary"]) == ("calibration", 1.0, 2.0)


def test_a_log_that_is_not_there_begins_nothing(path: Path) -> None:
    options = ["--stable", "a:1", "--canary", "b:1", "--log", str(path.with_name("log"))]
    with pytest.raises(AdpriorError, match="log: no such file or directory"):
        _run(path, *options)
    assert not path.exists()


def test_a_rollout_that_continues_finds_a_lost_canary(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_with_metrics("blue", "green") as servers:
        stable, canary = servers
        canary.stop()
        running = Rollout(
            state=State.RUNNING, stable=(stable.url,), canary=(canary.url,), share=0.05
        )
        Switch(path).write(running, expected="")
        # No servers given: the file knows them.
        assert _run(path, *_metrics(*servers), *QUICK, "--longest", "20s", "--json") == 3
        printed = json.loads(capsys.readouterr().out)
    assert printed["reason"].startswith(f"lost: http://{canary.metrics_address}/metrics: ")
    assert printed["servers"] == [stable.url]
    assert [step["share"] for step in printed["steps"]] == [0.05]
    assert [rule["verdict"] for rule in printed["steps"][0]["rules"]] == ["open"] * 4


def test_one_command_goes_back(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for state in (State.RUNNING, State.PROMOTED, State.ROLLED_BACK):
        path.write_text(RUNNING.change(state, "why", share=0.05).to_text())
        assert _run(path, "--rollback") == 0
        found, addresses = Switch(path).read()
        assert found is not None
        assert found.state is State.ROLLED_BACK
        assert found.reason == ("why" if state is State.ROLLED_BACK else f"asked for, was {state}")
        assert [address.line for address in addresses] == ["a:1"]
        assert capsys.readouterr().out.endswith("servers: a:1\n")


@pytest.mark.parametrize(
    ("text", "servers", "changes"),
    [
        (RUNNING.to_text() + "c:1\n", ["a:1", "c:1"], "added c:1; kept c:1"),
        (RUNNING.to_text() + "c:1 canary=0.5\n", ["a:1"], "added c:1 canary=0.5"),
        (RUNNING.to_text().replace("\na:1\n", "\nc:1\n"), ["a:1", "c:1"], "added c:1, removed a:1"),
        (
            RUNNING.to_text().replace("=0.05\n", "=0.5\n"),
            ["a:1"],
            "added b:1 canary=0.5, removed b:1 canary=0.05",
        ),
        (RUNNING.to_text() + "oops\n", ["a:1"], "malformed 'oops'"),
        (RUNNING.to_text() + "b:1\n", ["a:1"], "added b:1"),
        (RUNNING.to_text() + "# ours\n", ["a:1"], "comments, or the order of lines"),
        (
            RUNNING.change(State.ROLLED_BACK, "worse").to_text() + "b:1 canary=0.2\n",
            ["a:1"],
            "added b:1 canary=0.2",
        ),
    ],
)
def test_one_command_goes_back_after_a_change_by_hand(
    path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    servers: list[str],
    changes: str,
) -> None:
    path.write_text(text)
    assert _run(path, "--status") == 0
    first_change = changes.split(";", maxsplit=1)[0]
    assert f"\nsomebody has changed the file: {first_change}" in capsys.readouterr().out
    assert path.read_text() == text
    assert _run(path, "--rollback") == 0
    assert f"; somebody has changed the file: {changes}" in capsys.readouterr().out
    found, addresses = Switch(path).read()
    assert found is not None
    assert found.state is State.ROLLED_BACK
    assert [address.line for address in addresses] == servers
    # It is whole again: the same command changes nothing.
    text = path.read_text()
    assert _run(path, "--rollback") == 0
    assert path.read_text() == text


def test_a_status_in_json_lists_what_the_file_lists(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(RUNNING.to_text().replace("=0.05\n", "=0.5\n"))
    assert _run(path, "--status", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["servers"] == ["a:1", "b:1 canary=0.5"]
    assert printed["changes"] == ["added b:1 canary=0.5", "removed b:1 canary=0.05"]


def test_the_state_is_shown(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(RUNNING.to_text())
    assert _run(path, "--status") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"running, 5.0 % of the users since {RUNNING.since[:19]}Z"
    assert second == "servers: a:1, b:1 canary=0.05"
    assert _run(path, "--status", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["state"], printed["share"], printed["canary"]) == ("running", 0.05, ["b:1"])
    path.write_text("a:1\nb:1\n")
    assert _run(path, "--status") == 0
    assert capsys.readouterr().out == "no rollout; 2 servers\n"


def test_a_rollout_that_is_taken_over_prints_its_steps(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_with_metrics("blue", "green") as servers:
        stable, canary = servers

        def take_over() -> None:
            await_true(lambda: path.exists() and "canary=" in path.read_text())
            path.write_text(f"{stable.url}\n")

        thread = threading.Thread(target=take_over)
        thread.start()
        options = ["--stable", stable.url, "--canary", canary.url, *_metrics(*servers)]
        assert _run(path, *options, "--look", "0.05s", "--json") == 5
        thread.join()
    output = capsys.readouterr()
    assert f"adprior rollout: {path}: somebody else has changed it" in output.err
    printed = json.loads(output.out)
    assert printed["state"] == "taken over"
    assert printed["reason"] == f"{path}: somebody else has changed it; this rollout ends"
    assert printed["steps"] == []


def test_a_promoted_canary_stays(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(RUNNING.change(State.PROMOTED, "all rules were kept").to_text())
    assert _run(path, "--stable", "a:1", "--canary", "b:1") == 0
    assert capsys.readouterr().out.endswith("all rules were kept\nservers: b:1\n")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", ["--canary", "b:1"], "servers: lists no server; give --stable"),
        ("a:1\n", [], "--canary: missing; expected the servers of the new bundle"),
        ("a:1\nb:1 canary=0.1\n", ["--canary", "b:1"], "servers: lists canaries; give --stable"),
        ("a:1\n", ["--canary", "a:1"], "--canary: a:1 is a stable server"),
        ("a:1\n", ["--canary", "b"], "--canary: found 'b', expected HOST:PORT"),
        ("a:1\n", ["--canary", "b:1", "b:1"], "--canary: found a server twice in b:1, b:1"),
        (RUNNING.to_text(), ["--canary", "c:1"], "a rollout to b:1 from a:1 is running; continue"),
        ("a:1\n", ["--canary", "b:1", "--steps", "0.5", "0.1"], "--steps: found 0.5 0.1, expected"),
        ("a:1\n", ["--canary", "b:1", "--steps", "1"], "--steps: found 1.0, expected growing"),
        (
            "a:1\n",
            ["--canary", "b:1", "--hold", "2s"],
            "--look: found 6 looks of 1 s in 6 s, the longest time of a step, expected at least 8",
        ),
        (
            "a:1\n",
            ["--canary", "b:1", "--hold", "10m", "--look", "4m"],
            "--look: found 7 looks of 240 s in 1800 s, the longest",
        ),
        (
            "a:1\n",
            ["--canary", "b:1", "--metrics", "a:1=me:secret@host/metrics?token=secret"],
            "--metrics: found 'a:1=host/metrics', expected HOST",
        ),
        ("a:1\n", ["--canary", "b:1", "--metrics", "a:1"], "--metrics: found 'a:1', expected HOST"),
        ("a:1\n", ["--rollback"], "servers: states no rollout"),
        ("127.0.0.1:1\n", ["--canary", "127.0.0.1:3"], "stable: http://127.0.0.1:2/metrics: "),
    ],
)
def test_wrong_input_changes_nothing(
    path: Path, text: str, options: list[str], message: str
) -> None:
    path.write_text(text)
    with pytest.raises(AdpriorError) as caught:
        _run(path, *options)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == text


def test_metrics_are_beside_the_server_unless_given() -> None:
    given = {"a:1": "https://proxy/a/metrics"}
    assert page_url("a:1", given) == "https://proxy/a/metrics"
    assert page_url("10.0.0.1:8011", given) == "http://10.0.0.1:8012/metrics"
    assert page_url("[::1]:8001", given) == "http://[::1]:8002/metrics"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_rollout_that_is_ended_can_continue(path: Path, sent: signal.Signals) -> None:
    with running_with_metrics("blue", "green") as servers:
        stable, canary = servers
        options = ["--servers", str(path), "--stable", stable.url, "--canary", canary.url]
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *options, *_metrics(*servers)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            await_true(path.exists)
            process.send_signal(sent)
            _, errors = process.communicate(timeout=60)
        assert process.returncode != 0
        found, addresses = Switch(path).read()
        assert found is not None
        assert (found.state, found.share) == (State.RUNNING, 0.01)
        assert [address.line for address in addresses] == sorted(
            [stable.url, f"{canary.url} canary=0.01"]
        )
        if sent is signal.SIGINT:
            assert f"{path}: run again to continue, or with --rollback" in errors
        assert _run(path, *_metrics(*servers), *QUICK) == 4
