from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_client.rollout.switch import Rollout, State, Switch, TakenOverError
from adprior_client.server_sources import Address, parse_lines, source_of
from adprior_runtime.errors import InvalidInputError

STABLE, CANARY = ("a:8001", "b:8001"), ("[::1]:8001", "c:8001")
BEGUN = Rollout(state=State.RUNNING, stable=STABLE, canary=CANARY, share=0.05)


def _listed(rollout: Rollout) -> dict[str, float | None]:
    return {each.url: each.canary_share for each in parse_lines(rollout.to_text())}


def test_clients_find_the_servers_of_each_state(tmp_path: Path) -> None:
    assert _listed(BEGUN) == dict.fromkeys(STABLE) | dict.fromkeys(CANARY, 0.05)
    assert _listed(BEGUN.change(State.ROLLED_BACK, "worse")) == dict.fromkeys(STABLE)
    assert _listed(BEGUN.change(State.PROMOTED, "kept")) == dict.fromkeys(CANARY)
    switch = Switch(tmp_path / "servers")
    switch.write(BEGUN, expected="")
    assert source_of(f"file://{tmp_path}/servers").read() == tuple(sorted(BEGUN.addresses()))


@given(
    st.sampled_from(State), st.integers(1, 10**9 - 1).map(lambda parts: parts / 10**9), st.text()
)
def test_a_state_is_written_and_read_back(state: State, share: float, reason: str) -> None:
    rollout = BEGUN.change(state, reason, share=share)
    found, addresses = Switch(Path("servers")).read(rollout.to_text())
    assert found == rollout
    assert addresses == tuple(sorted(rollout.addresses()))


def test_a_file_without_a_state_is_no_rollout(tmp_path: Path) -> None:
    switch = Switch(tmp_path / "servers")
    assert switch.read() == (None, ())
    switch.path.write_text("# ours\nb:1\na:1\n")
    assert switch.read() == (None, (Address("a:1"), Address("b:1")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:1\nb\n", "line 2: found 'b', expected HOST:PORT or HOST:PORT canary=SHARE"),
        (BEGUN.to_text().replace("0.05\n", "0.5\n"), "the lines are not those of the rollout"),
        (BEGUN.to_text() + "d:8001\n", "the lines are not those of the rollout"),
        ("# adprior-rollout: {\na:1\n", "the rollout's state is malformed: "),
        ("# adprior-rollout: {}\na:1\n", "the rollout's state is malformed: "),
        ("# adprior-rollout: []\na:1\n", "the rollout's state is malformed: "),
        (BEGUN.to_text().replace('"running"', '"odd"'), "the rollout's state is malformed: "),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    switch = Switch(tmp_path / "servers")
    switch.path.write_text(text)
    with pytest.raises(InvalidInputError, match=f"{switch.path}: {message}"):
        switch.read()


def test_a_file_that_somebody_else_changed_stays(tmp_path: Path) -> None:
    switch = Switch(tmp_path / "servers")
    text = switch.write(BEGUN, expected="")
    switch.check(text)
    switch.path.write_text("a:8001\n")
    with pytest.raises(TakenOverError, match=f"{switch.path}: somebody else has changed it"):
        switch.check(text)
    with pytest.raises(TakenOverError):
        switch.write(BEGUN, expected=text)
    assert switch.path.read_text() == "a:8001\n"
    assert [path.name for path in tmp_path.iterdir()] == ["servers"]


@pytest.mark.parametrize(("before", "after"), [(0o644, 0o644), (0o640, 0o640), (None, 0o644)])
def test_the_mode_stays_whatever_the_umask(tmp_path: Path, before: int | None, after: int) -> None:
    switch, text = Switch(tmp_path / "servers"), ""
    if before is not None:
        text = "a:8001\n"
        switch.path.write_text(text)
        switch.path.chmod(before)
    umask = os.umask(0o077)
    try:
        switch.write(BEGUN, expected=text)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(switch.path.stat().st_mode) == after


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_stays(tmp_path: Path) -> None:
    switch = Switch(tmp_path / "servers")
    switch.path.write_text("a:8001\n")
    os.chown(switch.path, 65534, 65533)
    switch.write(BEGUN, expected="a:8001\n")
    assert (switch.path.stat().st_uid, switch.path.stat().st_gid) == (65534, 65533)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("a:8001\n")
    (tmp_path / "servers").symlink_to("real")
    switch = Switch(tmp_path / "servers")
    switch.write(BEGUN, expected="a:8001\n")
    assert switch.path.is_symlink()
    assert (tmp_path / "real").read_text() == BEGUN.to_text()


WRITES = """
import sys
from pathlib import Path
from adprior_client.rollout.switch import Rollout, State, Switch
switch = Switch(Path(sys.argv[1]))
text, rollout = switch.read_text(), switch.read()[0]
for number in range(10**9):
    reason, share = "x" * (number % 9) * 1000, 0.001 + number % 900 / 1000
    rollout = rollout.change(State.RUNNING, reason, share=share)
    text = switch.write(rollout, expected=text)
    if number == 0:
        print(flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    switch = Switch(tmp_path / "servers")
    text = switch.write(BEGUN, expected="")
    for delay_s in (0.0, 0.003, 0.017):
        with subprocess.Popen(
            [sys.executable, "-c", WRITES, str(switch.path)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(delay_s)
            writer.send_signal(signal.SIGKILL)
        before, text = text, switch.read_text()
        assert text != before
        assert switch.read()[0] is not None
    switch.write(BEGUN, expected=text)
    assert [path.name for path in tmp_path.iterdir()] == [
        "servers"
    ]  # leftovers of the killed writers are gone
