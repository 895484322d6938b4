from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypedDict

import psutil
import pytest

from adprior_runtime import contract
from adprior_runtime.bundle import MANIFEST, MODEL_FILES, Manifest
from adprior_runtime.errors import ArtefactError, EnvironmentProblemError
from adprior_runtime.server import TritonServer

pytestmark = pytest.mark.triton

RUNTIME = Path(__file__).parents[2] / "runtime"
CONFIG = """\
backend: "python"
max_batch_size: 4
input { name: "X" data_type: TYPE_INT32 dims: -1 }
output { name: "Y" data_type: TYPE_INT32 dims: -1 }
instance_group { kind: KIND_CPU count: 1 }
"""
MODEL = """\
import time
import triton_python_backend_utils as pb

class ArtefactError(Exception):
    pass

class TritonPythonModel:
    def initialize(self, args):
        {initialize}

    def execute(self, requests):
        return [
            pb.InferenceResponse(
                [pb.Tensor("Y", pb.get_input_tensor_by_name(request, "X").as_numpy())]
            )
            for request in requests
        ]
"""
COMMAND = "import sys; from adprior_runtime.cli import main; sys.exit(main())"
MakeRepository = Callable[..., Path]


class Ports(TypedDict):
    grpc_port: int
    http_port: int
    metrics_port: int


@pytest.fixture
def make_repository(tmp_path: Path) -> MakeRepository:
    def make(*, initialize: str = "pass", names: tuple[str, ...] = ("echo",)) -> Path:
        for name in names:
            version = tmp_path / "repo" / name / "1"
            version.mkdir(parents=True)
            (version / "model.py").write_text(MODEL.format(initialize=initialize))
            if name in contract.MODEL_NAMES:
                committed = RUNTIME.parent / "model_repository" / name
                ignore = shutil.ignore_patterns("1")
                shutil.copytree(committed, version.parent, dirs_exist_ok=True, ignore=ignore)
            else:
                (version.parent / "config.pbtxt").write_text(CONFIG)
            if name in MODEL_FILES:
                (version / "bundle").mkdir()
                manifest = Manifest(bundle_id="").sealed().to_json()
                (version / "bundle" / MANIFEST).write_text(manifest)
        return tmp_path / "repo"

    return make


@pytest.fixture
def ports() -> Ports:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        numbers = [each.getsockname()[1] for each in sockets]
    return {"grpc_port": numbers[0], "http_port": numbers[1], "metrics_port": numbers[2]}


@pytest.fixture(autouse=True)
def _nothing_remains() -> Iterator[None]:
    before = _remains()
    yield
    _wait_until(lambda: _remains() <= before)


def _remains() -> set[str]:
    places = (Path(tempfile.gettempdir()), Path("/dev/shm"))
    return {str(path) for place in places for path in place.glob("adprior-server-*")}


def _group(leader: int) -> list[int]:
    members = []
    for process in psutil.process_iter(["pid", "status"]):
        try:
            group = os.getpgid(process.pid)
        except ProcessLookupError:
            continue
        if group == leader and process.info["status"] != psutil.STATUS_ZOMBIE:
            members.append(process.pid)
    return members


def _wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def _infer(server: TritonServer, values: list[int]) -> list[int]:
    tensor = {"name": "X", "shape": [1, len(values)], "datatype": "INT32", "data": values}
    request = urllib.request.Request(
        f"http://{server.http_address}/v2/models/echo/infer",
        json.dumps({"inputs": [tensor]}).encode(),
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        answer: list[int] = json.load(response)["outputs"][0]["data"]
    return answer


@contextmanager
def _command(repository: Path, ports: Ports) -> Iterator[subprocess.Popen[str]]:
    flags = [f"--{name.replace('_', '-')}={port}" for name, port in ports.items()]
    with subprocess.Popen(
        [
            *(sys.executable, "-c", COMMAND),
            *("serve", "--repository", str(repository), *flags),
        ],
        env={**os.environ, "PYTHONPATH": str(RUNTIME)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_server_answers_and_stops_without_remains(
    make_repository: MakeRepository, ports: Ports
) -> None:
    with TritonServer.start(make_repository(), **ports) as server:
        assert _infer(server, [1, 2, 3]) == [1, 2, 3]
        with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=5) as page:
            assert b"nv_inference_request_success" in page.read()
        leader = server.process.pid
        assert len(_group(leader)) >= 2
    assert not _group(leader)
    assert server.process.returncode == 0


def test_changing_the_server_needs_a_key(make_repository: MakeRepository, ports: Ports) -> None:
    with TritonServer.start(make_repository(), **ports) as server:
        request = urllib.request.Request(
            f"http://{server.http_address}/v2/repository/index", b"{}", method="POST"
        )
        with pytest.raises(urllib.error.HTTPError) as refusal, urllib.request.urlopen(request):
            pass
        refusal.value.close()
        assert refusal.value.code in {401, 403}


def test_the_committed_configs_load(make_repository: MakeRepository, ports: Ports) -> None:
    repository = make_repository(names=contract.MODEL_NAMES)
    committed = RUNTIME.parent / "model_repository"
    shutil.copytree(committed, repository, dirs_exist_ok=True, ignore=shutil.ignore_patterns("1"))
    TritonServer.start(repository, **ports).stop()


def test_a_models_own_error_is_the_line_one_reads(
    make_repository: MakeRepository, ports: Ports
) -> None:
    repository = make_repository(initialize="raise ArtefactError('trie: hash is 0a, expected 1b')")
    with pytest.raises(ArtefactError) as error:
        TritonServer.start(repository, **ports)
    assert str(error.value) == "model echo: trie: hash is 0a, expected 1b"


def test_a_model_that_loads_for_ever_is_given_up(
    make_repository: MakeRepository, ports: Ports
) -> None:
    repository = make_repository(initialize="time.sleep(600)")
    with pytest.raises(EnvironmentProblemError, match=r"not ready within 1 s"):
        TritonServer.start(repository, **ports, ready_timeout_s=1)
    assert not [process for process in psutil.process_iter() if _serves(process, repository)]


def _serves(process: psutil.Process, repository: Path) -> bool:
    try:
        return str(repository) in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _server_of(command: subprocess.Popen[str]) -> psutil.Process:
    servers: list[psutil.Process] = []

    def found() -> bool:
        # A process that is to become the server has another name until it does.
        servers[:] = (
            child
            for child in psutil.Process(command.pid).children()
            if child.name().startswith("tritonserver")
        )
        return bool(servers)

    _wait_until(found)
    (server,) = servers
    return server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_says_ready_and_stops_on_a_signal(
    number: signal.Signals, make_repository: MakeRepository, ports: Ports
) -> None:
    with _command(make_repository(names=contract.MODEL_NAMES), ports) as command:
        assert command.stdout
        assert command.stdout.readline() == (
            f"adprior: ready · grpc 127.0.0.1:{ports['grpc_port']}"
            f" · http 127.0.0.1:{ports['http_port']} · metrics 127.0.0.1:{ports['metrics_port']}\n"
        )
        leader = _server_of(command).pid
        command.send_signal(number)
        _, errors = command.communicate(timeout=30)
        assert (command.returncode, errors) == (0, "")
        assert not _group(leader)


def test_a_signal_while_loading_stops_too(make_repository: MakeRepository, ports: Ports) -> None:
    repository = make_repository(names=contract.MODEL_NAMES, initialize="time.sleep(600)")
    with _command(repository, ports) as command:
        leader = _server_of(command).pid
        command.terminate()
        _, errors = command.communicate(timeout=60)
        assert (command.returncode, errors) == (0, "")
        assert not _group(leader)


def test_a_server_that_dies_is_reported(make_repository: MakeRepository, ports: Ports) -> None:
    with _command(make_repository(names=contract.MODEL_NAMES), ports) as command:
        assert command.stdout
        assert command.stdout.readline().startswith("adprior: ready")
        _server_of(command).kill()
        _, errors = command.communicate(timeout=30)
        assert command.returncode == 1
        assert errors == (
            "adprior serve: the server stopped: "
            "tritonserver ended by SIGKILL, and its log does not say why\n"
        )


def test_a_models_process_that_dies_ends_the_server(
    make_repository: MakeRepository, ports: Ports
) -> None:
    """Triton would not start it again, and would go on to say that it is ready."""
    with _command(make_repository(names=contract.MODEL_NAMES), ports) as command:
        assert command.stdout
        assert command.stdout.readline().startswith("adprior: ready")
        server = _server_of(command)
        stub = next(child for child in server.children() if "llm_engine" in child.cmdline()[1])
        stub.kill()
        _, errors = command.communicate(timeout=30)
        assert command.returncode == 1
        assert errors == (
            "adprior serve: the server stopped: model llm_engine: its process ended, "
            "and Triton does not start it again\n"
        )
        assert not _group(server.pid)


def test_a_failing_model_is_one_line_and_exit_code_2(
    make_repository: MakeRepository, ports: Ports
) -> None:
    repository = make_repository(
        names=contract.MODEL_NAMES, initialize="raise ArtefactError('manifest.json: missing')"
    )
    with _command(repository, ports) as command:
        output, errors = command.communicate(timeout=60)
    assert (command.returncode, output) == (2, "")
    assert errors.startswith("adprior serve: model ")
    assert errors.endswith(": manifest.json: missing\n")
    assert errors.count("\n") == 1


def test_the_server_does_not_outlive_a_killed_command(
    make_repository: MakeRepository, ports: Ports, tmp_path: Path
) -> None:
    with _command(make_repository(names=contract.MODEL_NAMES), ports) as command:
        assert command.stdout
        assert command.stdout.readline().startswith("adprior: ready")
        leader = _server_of(command).pid
        scratch = Path(_server_of(command).cwd())
        command.kill()
        command.wait()
        _wait_until(lambda: not _group(leader))
    # Nobody was left to remove the server's directory; whoever starts one next does.
    assert scratch.is_dir()
    with TritonServer.start(tmp_path / "repo", **ports):
        assert not scratch.exists()
