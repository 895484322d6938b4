from __future__ import annotations

from pathlib import Path

import pytest

from adprior_runtime.errors import EnvironmentProblemError
from adprior_runtime.server.endpoints import free_ports
from adprior_runtime.server.tritonserver import TritonServer


def _server_that_fails(place: Path, log: str) -> Path:
    """Make a tritonserver that writes a log and ends; return the file of its starts."""
    place.mkdir()
    starts = place / "starts"
    server = place / "tritonserver"
    server.write_text(f"#!/bin/sh\necho start >>{starts}\ncat <<'END'\n{log}\nEND\nexit 134\n")
    server.chmod(0o755)
    return starts


@pytest.mark.parametrize(
    ("log", "expected", "times"),
    [
        (
            "terminate called after throwing an instance of 'boost::interprocess::lock_exception'",
            r"aborted by itself: .*lock_exception, 3 times in a row; is the machine too busy\?",
            3,
        ),
        ("error: unexpected argument", "unexpected argument", 1),
    ],
)
def test_a_server_that_aborts_while_it_starts_is_started_again(
    log: str, expected: str, times: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    starts = _server_that_fails(tmp_path / "bin", log)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    grpc, http, metrics = free_ports(3)
    with pytest.raises(EnvironmentProblemError, match=expected):
        TritonServer.start(tmp_path, grpc_port=grpc, http_port=http, metrics_port=metrics)
    assert starts.read_text() == "start\n" * times
