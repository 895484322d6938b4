"""A tritonserver as a child process, and `adprior serve`: start, stop, faults, what remains."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from adprior_runtime import contract
from adprior_runtime.bundle import MANIFEST, MODEL_FILES, Manifest
from adprior_runtime.errors import ArtefactError, EnvironmentProblemError
from adprior_runtime.server.tritonserver import TritonServer
from support.paths import ROOT
from support.processes import COMMAND, await_true
from support.servers import choose_ports, port_options

pytestmark = pytest.mark.triton

COMMITTED = ROOT / "model_repository"
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
MakeRepository = Callable[..., Path]
Ports = dict[str, Any]


@pytest.fixture
def make_repository(tmp_path: Path) -> MakeRepository:
    def make(*, initialize: str = "pass", names: tuple[str, ...] = ("echo",)) -> Path:
        for name in names:
            version = tmp_path / "repo" / name / "1"
            version.mkdir(parents=True)
            (version / "model.py").write_text(MODEL.format(initialize=initialize))
            if name in contract.MODEL_NAMES:
                ignore = shutil.ignore_patterns("1")
                shutil.copytree(COMMITTED / name, version.parent, dirs_exist_ok=True, ignore=ignore)
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
    return choose_ports()


@pytest.fixture(autouse=True)
def _nothing_remains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Assert that servers leave no temporary files and no shared memory."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "temporary").mkdir()
    before = _unmapped_memory()
    yield
    await_true(lambda: not [*(tmp_path / "temporary").glob("adprior-server-*")])
    await_true(lambda: _unmapped_memory() <= before)


def _unmapped_memory() -> set[str]:
    """Return the servers' shared memory that no process has mapped."""
    found = {str(path) for path in Path("/dev/shm").glob("adprior-server-*")}
    for maps in Path("/proc").glob("[0-9]*/maps"):
        if not found:
            break
        with contextlib.suppress(OSError):
            found -= {line.split()[-1] for line in maps.read_text().splitlines() if "/dev/" in line}
    return found


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


def _infer(server: TritonServer, values: list[int]) -> list[int]:
    tensor = {"name": "X", "shape": [1, len(values)], "datatype": "INT32", "data": values}
    request = urllib.request.Request(
        f"http://{server.http_address}/v2/models/echo/infer",
        json.dumps({"inputs": [tensor]}).encode(),
    )
    with urllib.request.urlopen(request) as response:
        answer: list[int] = json.load(response)["outputs"][0]["data"]
    return answer


@contextmanager
def _command(repository: Path, ports: Ports, *options: str) -> Iterator[subprocess.Popen[str]]:
    serve = ["serve", "--repository", str(repository), "--drain-seconds=0", *port_options(ports)]
    with subprocess.Popen(
        [*COMMAND, *serve, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_server_answers_and_leaves_no_process_when_stopped(
    make_repository: MakeRepository, ports: Ports
) -> None:
    with TritonServer.start(make_repository(), **ports) as server:
        assert _infer(server, [1, 2, 3]) == [1, 2, 3]
        with urllib.request.urlopen(f"http://{server.metrics_address}/metrics") as page:
            assert b"nv_inference_request_success" in page.read()
        leader = server.process.pid
        assert len(_group(leader)) >= 2
    assert not _group(leader)
    assert server.process.returncode == 0


def test_administration_needs_a_key(make_repository: MakeRepository, ports: Ports) -> None:
    with TritonServer.start(make_repository(), **ports) as server:
        request = urllib.request.Request(
            f"http://{server.http_address}/v2/repository/index", b"{}", method="POST"
        )
        with pytest.raises(urllib.error.HTTPError) as refusal, urllib.request.urlopen(request):
            pass
        refusal.value.close()
        assert refusal.value.code in {401, 403}


def test_the_error_is_the_message_of_the_model_that_failed(
    make_repository: MakeRepository, ports: Ports
) -> None:
    repository = make_repository(initialize="raise ArtefactError('trie: hash is 0a, expected 1b')")
    with pytest.raises(ArtefactError) as error:
        TritonServer.start(repository, **ports)
    assert str(error.value) == "model echo: trie: hash is 0a, expected 1b"


def test_a_model_that_does_not_finish_loading_times_out(
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
        # The child has another name until it executes tritonserver.
        servers[:] = (
            child
            for child in psutil.Process(command.pid).children()
            if child.name().startswith("tritonserver")
        )
        return bool(servers)

    await_true(found)
    (server,) = servers
    return server


def test_serve_prints_ready_and_stops_on_a_signal(
    make_repository: MakeRepository, ports: Ports
) -> None:
    with _command(make_repository(names=contract.MODEL_NAMES), ports) as command:
        assert command.stdout
        assert command.stdout.readline() == (
            f"adprior: ready · grpc 127.0.0.1:{ports['grpc_port']}"
            f" · http 127.0.0.1:{ports['http_port']} · metrics 127.0.0.1:{ports['metrics_port']}\n"
        )
        leader = _server_of(command).pid
        command.send_signal(signal.SIGINT)
        _, errors = command.communicate()
        assert (command.returncode, errors) == (0, "")
        assert not _group(leader)


def test_serve_stops_on_a_signal_while_models_load(
    make_repository: MakeRepository, ports: Ports
) -> None:
    repository = make_repository(names=contract.MODEL_NAMES, initialize="time.sleep(600)")
    with _command(repository, ports) as command:
        leader = _server_of(command).pid
        command.terminate()
        _, errors = command.communicate()
        assert (command.returncode, errors) == (0, "")
        assert not _group(leader)


def _kill_server(server: psutil.Process) -> None:
    server.kill()


def _kill_model(server: psutil.Process) -> None:
    """Kill a model's process: Triton neither restarts it nor reports that it is not ready."""
    next(child for child in server.children() if "llm_engine" in child.cmdline()[1]).kill()


DEATHS = [
    (_kill_server, "tritonserver ended by SIGKILL, and its log does not say why"),
    (_kill_model, "model llm_engine: its process ended, and Triton does not start it again"),
]


@pytest.mark.parametrize(("kill", "why"), DEATHS)
def test_serve_restarts_a_dead_server_on_the_same_ports(
    kill: Callable[[psutil.Process], None],
    why: str,
    make_repository: MakeRepository,
    ports: Ports,
) -> None:
    with _command(make_repository(names=contract.MODEL_NAMES), ports) as command:
        assert command.stdout
        assert command.stderr
        ready = command.stdout.readline()
        assert ready.startswith("adprior: ready")
        server = _server_of(command)
        kill(server)
        assert command.stderr.readline() == (
            f"adprior serve: the server stopped: {why}; starting it again "
            "(restart 1 of at most 10 in 10 minutes)\n"
        )
        assert command.stdout.readline() == ready
        assert not _group(server.pid)
        leader = _server_of(command).pid
        assert leader != server.pid
        command.terminate()
        _, errors = command.communicate()
        assert (command.returncode, errors) == (0, "")
        assert not _group(leader)


@pytest.mark.parametrize(("kill", "why"), DEATHS)
def test_serve_without_restart_reports_a_dead_server_and_exits(
    kill: Callable[[psutil.Process], None],
    why: str,
    make_repository: MakeRepository,
    ports: Ports,
) -> None:
    with _command(make_repository(names=contract.MODEL_NAMES), ports, "--no-restart") as command:
        assert command.stdout
        assert command.stdout.readline().startswith("adprior: ready")
        server = _server_of(command)
        kill(server)
        _, errors = command.communicate()
        assert command.returncode == 1
        assert errors == f"adprior serve: the server stopped: {why}\n"
        assert not _group(server.pid)


def test_serve_exits_with_code_2_and_one_line_if_a_model_fails(
    make_repository: MakeRepository, ports: Ports
) -> None:
    repository = make_repository(
        names=contract.MODEL_NAMES, initialize="raise ArtefactError('manifest.json: missing')"
    )
    with _command(repository, ports) as command:
        output, errors = command.communicate()
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
        await_true(lambda: not _group(leader))
    # The next start removes the directory that the killed command left.
    assert scratch.is_dir()
    with TritonServer.start(tmp_path / "repo", **ports):
        assert not scratch.exists()
