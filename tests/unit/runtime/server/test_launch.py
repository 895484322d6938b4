from __future__ import annotations

from pathlib import Path

import pytest

from adprior_runtime.contract import Target
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.server.access import Access
from adprior_runtime.server.endpoints import Endpoints
from adprior_runtime.server.installation import Installation
from adprior_runtime.server.launch import Launch


@pytest.fixture
def server_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tritonserver").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("server_on_path")
def test_a_server_with_backends_of_its_own_takes_no_further_ones(tmp_path: Path) -> None:
    launch = Launch(repository=tmp_path, endpoints=Endpoints(), backends=[tmp_path])
    with pytest.raises(InvalidInputError, match="tritonserver has backends of its own"):
        launch.start()


@pytest.mark.usefixtures("server_on_path")
def test_a_log_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "no" / "server.log"
    launch = Launch(repository=tmp_path, endpoints=Endpoints(), log_file=log)
    with pytest.raises(InvalidInputError, match=r"server\.log: cannot be written"):
        launch.start()


def test_the_command_line_is_closed_by_default(tmp_path: Path) -> None:
    launch = Launch(repository=tmp_path, endpoints=Endpoints(), access=Access(admin_token="secret"))
    command = launch.command(Installation(binary=Path("/bin/tritonserver")), Path("/backends"))
    closed = "model-repository,shared-memory,trace,logging:admin-key=secret"
    assert command[0] == "/bin/tritonserver"
    assert {
        f"--model-repository={tmp_path}",
        "--model-config-name=cpu",
        "--backend-directory=/backends",
        "--disable-auto-complete-config",
        "--exit-on-error=true",
        "--strict-readiness=true",
        "--grpc-address=127.0.0.1",
        "--http-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
        "--grpc-port=8001",
        "--http-port=8000",
        "--metrics-port=8002",
        f"--grpc-restricted-protocol={closed}",
        f"--http-restricted-api={closed}",
    } <= set(command)


def test_a_gpu_has_a_configuration_of_its_own(tmp_path: Path) -> None:
    launch = Launch(repository=tmp_path, endpoints=Endpoints(), target=Target.CUDA)
    command = launch.command(Installation(binary=Path("tritonserver")))
    assert "--model-config-name=cuda" in command


def test_the_production_configuration_has_no_name(tmp_path: Path) -> None:
    installation = Installation(binary=Path("tritonserver"))
    launch = Launch(repository=tmp_path, endpoints=Endpoints(), target=Target.TENSORRT_LLM)
    command = launch.command(installation)
    assert not any("config-name" in part or "backend-directory" in part for part in command)
