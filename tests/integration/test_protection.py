"""A server that other machines can reach, and its protection against them.

All tests share one `adprior serve`: mutual TLS, tokens, a repository that it cannot write.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
import trustme
from tritonclient.utils import InferenceServerException

from adprior_bench.server.perf_analyzer import find_perf_analyzer
from adprior_client import ClientConfig, Forecast, RankingClient, Reason, RetrievalClient
from adprior_runtime import contract
from adprior_runtime.cli import main
from adprior_runtime.errors import EnvironmentProblemError
from support.data_set import ADVERTISERS, user
from support.helm_chart import load_values, pod_templates, render
from support.processes import COMMAND, run, run_adprior
from support.raw_requests import context_tensor, make_inputs
from support.servers import choose_ports, port_options

pytestmark = pytest.mark.triton

ADMIN = "admin-token-of-the-tests"
INFERENCE = "inference-token-of-the-tests"
CANARY = "canary-of-a-users-context"
CANDIDATES = [100, 101, 102]
BASE = [0.1, -1.7, 2.3]
"""No FP32 numbers: the client must return them without rounding."""


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """A protected server, and the files that its callers use."""

    process: subprocess.Popen[str]
    files: Path
    repository: Path
    url: str
    http: str
    metrics: str

    def config(self, **changed: Any) -> ClientConfig:
        """Return a configuration with all that the server requires, with changes."""
        settings: dict[str, Any] = {
            "tls_ca_file": "ca.pem",
            "tls_certificate_file": "caller.pem",
            "tls_key_file": "caller-key.pem",
            "token_file": "inference",
        } | changed
        for name, value in settings.items():
            if value is not None and name.endswith("_file"):
                settings[name] = str(self.files / value)
        return ClientConfig(urls=(self.url,), deadline_s=20, health_interval_s=0, **settings)

    def connect(self) -> triton.InferenceServerClient:
        """Return tritonclient's own client, which checks no values."""
        credentials = grpc.ssl_channel_credentials(
            *((self.files / f"{name}.pem").read_bytes() for name in ("ca", "caller-key", "caller"))
        )
        return triton.InferenceServerClient(self.url, creds=credentials)

    def server(self) -> psutil.Process:
        """Return tritonserver itself."""
        (server,) = psutil.Process(self.process.pid).children()
        return server

    def options(self) -> list[str]:
        """Return the TLS options of a command."""
        return [
            *("--url", self.url, "--tls-ca", str(self.files / "ca.pem")),
            *("--tls-cert", str(self.files / "caller.pem")),
            *("--tls-key", str(self.files / "caller-key.pem")),
        ]


def _write_files(place: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    authority.cert_pem.write_to_path(place / "ca.pem")
    stranger.cert_pem.write_to_path(place / "other-ca.pem")
    for name, issued in {
        "server": authority.issue_cert("127.0.0.1"),
        "caller": authority.issue_cert("ads.example"),
        "expired": authority.issue_cert("ads.example", not_after=yesterday),
        "foreign": stranger.issue_cert("ads.example"),
    }.items():
        issued.cert_chain_pems[0].write_to_path(place / f"{name}.pem")
        issued.private_key_pem.write_to_path(place / f"{name}-key.pem")
    for name, token in (("admin", ADMIN), ("inference", INFERENCE), ("wrong", "wrong-" + ADMIN)):
        (place / name).write_text(token)
    for path in place.iterdir():
        path.chmod(0o600)


def _drop_privileges() -> list[str]:
    """Return the start of a command line that takes away root's right to ignore file modes."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("run as root, and there is no setpriv to give up its privileges")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def _listing(directory: Path) -> list[tuple[str, int, int, int]]:
    return sorted(
        (str(path), found.st_mode, found.st_size, found.st_mtime_ns)
        for path in directory.rglob("*")
        for found in [path.stat()]
    )


@pytest.fixture(scope="module")
def guarded(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    files = tmp_path_factory.mktemp("guarded")
    _write_files(files)
    copy = tmp_path_factory.mktemp("closed") / "repository"
    shutil.copytree(repository, copy)
    paths = [copy, *copy.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = ["serve", "--repository", str(copy), "--log-file", str(files / "server.log")]
    for option, name in {
        "tls-cert": "server.pem",
        "tls-key": "server-key.pem",
        "tls-client-ca": "ca.pem",
        "admin-token-file": "admin",
        "inference-token-file": "inference",
    }.items():
        command += [f"--{option}", str(files / name)]
    with (
        (files / "stderr").open("wb") as errors,
        subprocess.Popen(
            [*_drop_privileges(), *COMMAND, *command, *port_options(choose_ports())],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=files,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            assert "adprior: ready" in ready, (files / "stderr").read_text()
            addresses = dict(re.findall(r"(\w+) (127\.0\.0\.1:\d+)", ready))
            yield Guarded(
                process=process,
                files=files,
                repository=copy,
                url=addresses["grpc"],
                http=addresses["http"],
                metrics=addresses["metrics"],
            )
        finally:
            process.terminate()
            process.wait(30)
            for path in paths:
                path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture(scope="module")
def forecast(guarded: Guarded) -> Forecast:
    with RetrievalClient(guarded.config()) as client:
        return client.forecast(user(5), 5)


def test_a_caller_with_certificate_and_token_is_answered(
    guarded: Guarded, forecast: Forecast
) -> None:
    assert forecast.reason is None
    assert len(forecast.advertisers) == 5
    with RankingClient(guarded.config()) as client:
        for subject in (user(5), forecast):
            ranking = client.score(subject, CANDIDATES, BASE)
            assert ranking.reason is None
            assert ranking.applied


FAULTS: dict[str, tuple[dict[str, Any], Reason, str]] = {
    "no token": ({"token_file": None}, Reason.DENIED, "wrong or no token"),
    "a wrong token": ({"token_file": "wrong"}, Reason.DENIED, "wrong or no token"),
    "the admin token": ({"token_file": "admin"}, Reason.DENIED, "wrong or no token"),
    "another authority": (
        {"tls_ca_file": "other-ca.pem"},
        Reason.UNAVAILABLE,
        "CERTIFICATE_VERIFY_FAILED",
    ),
    "another name": (
        {"tls_server_name": "elsewhere.example"},
        Reason.UNAVAILABLE,
        "Hostname Verification",
    ),
    "no certificate": (
        {"tls_certificate_file": None, "tls_key_file": None},
        Reason.UNAVAILABLE,
        "may require a client certificate",
    ),
    "a stranger's certificate": (
        {"tls_certificate_file": "foreign.pem", "tls_key_file": "foreign-key.pem"},
        Reason.UNAVAILABLE,
        "may not trust the client's certificate",
    ),
    "an expired certificate": (
        {"tls_certificate_file": "expired.pem", "tls_key_file": "expired-key.pem"},
        Reason.UNAVAILABLE,
        "or it has expired",
    ),
    "plain text": (
        {"tls_ca_file": None, "tls_certificate_file": None, "tls_key_file": None},
        Reason.UNAVAILABLE,
        "may require TLS",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_rejected_caller_gets_base_logits_and_a_clear_error(
    guarded: Guarded, forecast: Forecast, fault: str
) -> None:
    changed, reason, message = FAULTS[fault]
    with RankingClient(guarded.config(**changed)) as client:
        for subject in (user(5), forecast):
            ranking = client.score(subject, CANDIDATES, BASE)
            assert ranking.logits.tolist() == BASE
            assert ranking.reason is reason
    with (
        RetrievalClient(guarded.config(fail_open=False, **changed)) as client,
        pytest.raises(Exception, match=message) as caught,
    ):
        client.forecast(user(5))
    assert ADMIN not in str(caught.value)


def test_commands_accept_the_options_and_report_a_rejection_in_one_line(
    guarded: Guarded, tmp_path: Path
) -> None:
    (tmp_path / "user.json").write_text(json.dumps(user(5)))
    arguments = ["predict", "--json", "--user", str(tmp_path / "user.json"), *guarded.options()]
    token = ["--token-file", str(guarded.files / "inference")]
    distrusted = ["--tls-ca", str(guarded.files / "other-ca.pem")]
    answered, *refused = (
        run_adprior(*arguments, *more) for more in (token, [], [*token, *distrusted])
    )
    assert answered.returncode == 0, answered.stderr
    assert json.loads(answered.stdout)["bundle_id"]
    for command, message in zip(refused, ("no token", "CERTIFICATE_VERIFY_FAILED"), strict=True):
        assert command.returncode == 2
        assert re.fullmatch(rf"adprior predict: .*{message}.*\n", command.stderr)


ADMINISTRATION: dict[str, Callable[[Any, dict[str, str]], Any]] = {
    "models": lambda client, headers: client.get_model_repository_index(headers=headers),
    "shared memory": lambda client, headers: client.get_system_shared_memory_status(
        headers=headers
    ),
    "tracing": lambda client, headers: client.get_trace_settings(headers=headers),
    "logging": lambda client, headers: client.get_log_settings(headers=headers),
}


@pytest.mark.parametrize("call", ADMINISTRATION)
def test_administration_needs_the_admin_token(guarded: Guarded, call: str) -> None:
    key = f"{contract.GRPC_KEY_PREFIX}{contract.ADMIN_KEY}"
    with guarded.connect() as client:
        for token in ("", INFERENCE):
            with pytest.raises(InferenceServerException, match="restricted"):
                ADMINISTRATION[call](client, {key: token} if token else {})
        ADMINISTRATION[call](client, {key: ADMIN})


def test_health_needs_a_certificate_but_no_token(guarded: Guarded) -> None:
    with guarded.connect() as client:
        assert client.is_server_ready()
        with pytest.raises(InferenceServerException, match="restricted"):
            client.get_server_metadata()


@pytest.mark.parametrize("path", ["", "/models/llm_engine/config", "/models/stats", "/logging"])
def test_http_has_no_tls_and_answers_only_health_checks(guarded: Guarded, path: str) -> None:
    with urlopen(f"http://{guarded.http}/v2/health/ready") as answer:
        assert answer.status == 200
    with pytest.raises(HTTPError) as refused:
        urlopen(f"http://{guarded.http}/v2{path}")
    refused.value.close()
    assert refused.value.code == 403


@pytest.mark.parametrize("probe", ["startup", "readiness", "liveness"])
def test_the_charts_probes_pass_with_mutual_tls_and_tokens(guarded: Guarded, probe: str) -> None:
    (pod, *_) = pod_templates(render(load_values("everything")))
    program, *arguments = pod["containers"][0][f"{probe}Probe"]["exec"]["command"]
    assert program == "python3"
    port = guarded.http.rpartition(":")[2]
    done = run(sys.executable, *(each.replace("8000", port) for each in arguments))
    assert done.returncode == 0, done.stderr


def test_other_users_of_the_machine_can_read_neither_tokens_nor_tensors(guarded: Guarded) -> None:
    server = guarded.server()
    arguments = "\0".join(server.cmdline())
    assert "inference-key=****" in arguments
    assert ADMIN not in arguments
    assert INFERENCE not in arguments
    mapped = {
        Path(entry.path)
        for process in (server, *server.children(recursive=True))
        for entry in process.memory_maps()
        if entry.path.startswith("/dev/shm/adprior-server-")
    }
    assert mapped
    assert {path.stat().st_mode & 0o777 for path in mapped} == {0o600}


def _refusal(guarded: Guarded, model: str, **changed: Any) -> str:
    """Call the model without the client's own checks; return status and message."""
    known: dict[str, Any] = {
        contract.USER_CONTEXT: context_tensor(user(5)),
        contract.CANDIDATE_ADVERTISER_IDS: CANDIDATES,
        contract.BASE_LOGITS: BASE,
        contract.ADVERTISER_IDS: [100],
        contract.LOG_PROBS: [-1.0],
        contract.MISSING_MASS: [0.5],
    } | changed
    headers = {f"{contract.GRPC_KEY_PREFIX}{contract.INFERENCE_KEY}": INFERENCE}
    with guarded.connect() as client:
        try:
            client.infer(model, make_inputs(model, known), headers=headers, client_timeout=60)
        except InferenceServerException as error:
            return f"{error.status()} {error.message()}"
    return "answered"


_IDS = np.zeros(contract.MAX_EXCLUDED + 1, dtype=np.int64)
_MANY = contract.MAX_CANDIDATES + 1
_MANY_CANDIDATES = {
    contract.CANDIDATE_ADVERTISER_IDS: _IDS[:_MANY],
    contract.BASE_LOGITS: np.zeros(_MANY, dtype=np.float32),
}
TOO_LARGE: dict[str, tuple[str, dict[str, Any], str]] = {
    "a context": (
        contract.ADVERTISER_RETRIEVAL,
        {contract.USER_CONTEXT: context_tensor(CANARY.encode() * 2**19)},
        "USER_CONTEXT: 13107200 bytes, at most 262144",
    ),
    "exclusions": (
        contract.ADVERTISER_RETRIEVAL,
        {contract.EXCLUDED_ADVERTISER_IDS: _IDS},
        "EXCLUDED_ADVERTISER_IDS: found 100,001 values, expected at most 100,000",
    ),
    "candidates": (
        contract.ADVERTISER_RANKING,
        _MANY_CANDIDATES,
        "CANDIDATE_ADVERTISER_IDS: found 10,001 values, expected at most 10,000",
    ),
    "candidates of a given forecast": (
        contract.PRIOR_HEAD,
        _MANY_CANDIDATES,
        "CANDIDATE_ADVERTISER_IDS: found 10,001 values, expected at most 10,000",
    ),
    "a forecast": (
        contract.PRIOR_HEAD,
        {
            contract.ADVERTISER_IDS: np.arange(contract.MAX_TOP_K + 1),
            contract.LOG_PROBS: np.full(contract.MAX_TOP_K + 1, -9.0, dtype=np.float32),
        },
        "ADVERTISER_IDS: found 1,001 values, expected at most 1,000",
    ),
}


@pytest.mark.parametrize("tensor", TOO_LARGE)
def test_the_server_refuses_a_tensor_that_is_too_large_and_keeps_serving(
    guarded: Guarded, tensor: str
) -> None:
    model, tensors, message = TOO_LARGE[tensor]
    refusal = _refusal(guarded, model, **tensors)
    assert refusal.startswith("StatusCode.INVALID_ARGUMENT")
    assert message in refusal
    assert _refusal(guarded, model) == "answered"


def test_logs_and_metrics_hold_no_context_and_no_token(guarded: Guarded) -> None:
    secret_user = user(3) | {"profile": {"note": CANARY}}
    with RetrievalClient(guarded.config(fail_open=False)) as client:
        client.forecast(secret_user)
    context = {contract.USER_CONTEXT: context_tensor(secret_user | {"history": [{"time": CANARY}]})}
    assert "INVALID_ARGUMENT" in _refusal(guarded, contract.ADVERTISER_RETRIEVAL, **context)
    with urlopen(f"http://{guarded.metrics}/metrics") as page:
        shown = page.read().decode()
    shown += (guarded.files / "server.log").read_text() + (guarded.files / "stderr").read_text()
    assert "nv_inference_request_success" in shown
    for secret in (CANARY, ADMIN, INFERENCE, *ADVERTISERS[1:3]):
        assert secret not in shown


def test_the_server_cannot_write_its_repository(guarded: Guarded) -> None:
    before = _listing(guarded.repository)
    with RetrievalClient(guarded.config(fail_open=False)) as client:
        client.forecast(user(7))
    assert _listing(guarded.repository) == before
    attempt = [*_drop_privileges(), sys.executable, "-c", "import sys; open(sys.argv[1], 'w')"]
    for place in (guarded.repository / "new", guarded.repository / "tokenizer" / "config.pbtxt"):
        written = subprocess.run([*attempt, str(place)], capture_output=True, check=False)
        assert b"PermissionError" in written.stderr


def _analyzers() -> dict[int, list[str]]:
    """Return the arguments of each perf_analyzer that this process started."""
    return {
        process.pid: process.info["cmdline"]
        for process in psutil.process_iter(["name", "ppid", "cmdline"])
        if process.info["name"] == "perf_analyzer"
        and process.info["ppid"] == os.getpid()
        and process.info["cmdline"]
    }


def test_the_benchmark_hides_the_token_in_the_process_list(
    guarded: Guarded, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        find_perf_analyzer()
    except EnvironmentProblemError as error:
        pytest.skip(str(error))
    names = {"tls_ca": "ca.pem", "tls_certificate": "caller.pem", "tls_key": "caller-key.pem"}
    files = {**names, "token": "inference"}.items()
    settings = tmp_path / "client.toml"
    lines = [f'{key}_file = "{guarded.files / name}"\n' for key, name in files]
    settings.write_text("".join(['urls = ["elsewhere:1"]\n', *lines]))
    command = ["bench", "server", "--url", guarded.url, "--bundle", str(bundle), "--quick"]
    command += ["--client", str(settings), "--scenarios", "retrieval", "--seconds", "2", "--json"]
    seen: dict[int, list[list[str]]] = {}
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.05):
            for pid, arguments in _analyzers().items():
                seen.setdefault(pid, []).append(arguments)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert main(command) == 0
    finally:
        is_over.set()
        watcher.join()
    rows = json.loads(capsys.readouterr().out)
    assert rows
    assert all(row["problem"] is None and row["throughput"] > 0 for row in rows)
    assert len(seen) == len(rows)
    for arguments in seen.values():
        (header,) = (text for text in arguments[-1] if "inference-key" in text)
        assert header.partition(":")[2] == "*" * len(INFERENCE)
        shown = sum(any(INFERENCE in text for text in each) for each in arguments)
        assert shown < len(arguments) / 4
