from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from adprior_runtime.errors import (
    AdpriorError,
    ArtefactError,
    EnvironmentProblemError,
    InvalidInputError,
)
from adprior_runtime.server.supervision import (
    Restarts,
    StopRequested,
    serve_on,
    signals_stop,
)

LOST = EnvironmentProblemError("model llm_engine: its process ended")


class Server:
    """A server that ends at once, or when ``act`` returns; it records the calls of its methods."""

    def __init__(self, act: Callable[[str], object] = lambda _: None) -> None:
        self.done: list[str] = []
        self._act = act

    def wait(self) -> int:
        self._do("wait")
        return 1

    def failure(self) -> AdpriorError:
        return LOST

    def serve_on(self, seconds: float) -> None:
        self._do(f"drain {seconds:g}")

    def kill(self) -> None:
        self.done.append("kill")

    def stop(self) -> None:
        self._do("stop")

    def _do(self, what: str) -> None:
        self.done.append(what)
        self._act(what)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr("adprior_runtime.server.supervision.time.sleep", found.append)
    return found


def nothing(_: Server) -> None:
    pass


# --- started again -------------------------------------------------------------------------------
def test_a_server_that_ends_is_started_again_until_the_limit(
    pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    servers: list[Server] = []

    def start() -> Server:
        servers.append(Server())
        return servers[-1]

    assert serve_on(start, nothing, Restarts(most=4, clock=lambda: 0.0)) is LOST
    assert [server.done for server in servers] == [["wait", "stop"]] * 5
    assert pauses == [0, 1, 2, 4]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        "adprior serve: the server stopped: model llm_engine: its process ended; starting it again "
        "(restart 1 of at most 4 in 10 minutes)"
    )
    assert "starting it again after 4 s (restart 4 of" in lines[3]
    assert len(lines) == 4


def test_no_restarts_are_possible(pauses: list[float]) -> None:
    assert serve_on(Server, nothing, Restarts(most=0)) is LOST
    assert pauses == []


def test_old_restarts_are_forgotten_and_a_steady_server_restarts_at_once() -> None:
    now = [0.0]
    restarts = Restarts(most=2, clock=lambda: now[0])
    assert restarts.pause_s(0) == 0
    assert restarts.pause_s(0) == 1
    assert restarts.pause_s(0) is None
    now[0] = 601.5
    assert restarts.pause_s(10) == 0
    assert restarts.pause_s(9.9) == 1


def test_a_first_start_that_fails_raises() -> None:
    def start() -> Server:
        raise InvalidInputError("port 8001 is in use")

    with pytest.raises(InvalidInputError, match="in use"):
        serve_on(start, nothing, Restarts(most=3))


def test_a_restart_waits_for_a_port_that_was_taken_meanwhile(
    pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    starts: list[str] = []

    def start() -> Server:
        starts.append("")
        if len(starts) in {2, 3}:
            raise InvalidInputError("port 8001 is in use")
        return Server()

    assert serve_on(start, nothing, Restarts(most=4, clock=lambda: 0.0)) is LOST
    assert len(starts) == 5
    assert capsys.readouterr().err.count("the server stopped: port 8001 is in use; starting") == 2


def test_a_repository_damaged_meanwhile_ends_the_restarts(pauses: list[float]) -> None:
    starts: list[str] = []
    damaged = ArtefactError("manifest.json: hash is 0a, expected 1b")

    def start() -> Server:
        starts.append("")
        if len(starts) == 2:
            raise damaged
        return Server()

    assert serve_on(start, nothing, Restarts(most=9)) is damaged
    assert pauses == [0]


# --- stopped -------------------------------------------------------------------------------------
def _come(*numbers: signal.Signals) -> Callable[[str], None]:
    """Return a function that sends this process the next signal at each step except stopping."""
    left = list(numbers)

    def act(what: str) -> None:
        if left and (what != "stop" or len(numbers) - len(left) >= 1):
            os.kill(os.getpid(), left.pop(0))

    return act


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([signal.SIGTERM], ["wait", "drain 3", "stop"]),
        ([signal.SIGINT], ["wait", "stop"]),
        ([signal.SIGHUP], ["wait", "stop"]),
        # The second is for who does not want to wait; a third changes nothing.
        ([signal.SIGTERM, signal.SIGTERM], ["wait", "drain 3", "kill", "stop"]),
        ([signal.SIGTERM, signal.SIGINT, signal.SIGINT], ["wait", "drain 3", "kill", "stop"]),
        ([signal.SIGINT, signal.SIGINT], ["wait", "stop", "kill", "stop"]),
    ],
)
def test_signals_stop_a_server_cleanly(
    numbers: list[signal.Signals], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(_come(*numbers))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StopRequested), signals_stop():
        serve_on(lambda: server, nothing, Restarts(most=3), drain_s=3)
    assert server.done == expected
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err == ""


def test_without_drain_time_the_server_stops_at_once() -> None:
    server = Server(_come(signal.SIGTERM))
    with pytest.raises(StopRequested), signals_stop():
        serve_on(lambda: server, nothing, Restarts(most=3), drain_s=0)
    assert server.done == ["wait", "stop"]


def test_a_signal_during_a_restart_ends_it(pauses: list[float]) -> None:
    starts: list[Server] = []

    def start() -> Server:
        if starts:
            os.kill(os.getpid(), signal.SIGTERM)
        starts.append(Server())
        return starts[-1]

    with pytest.raises(StopRequested), signals_stop():
        serve_on(start, nothing, Restarts(most=3), drain_s=3)
    assert len(starts) == 1
