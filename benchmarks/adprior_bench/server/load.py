"""One load of perf_analyzer: requests in flight, or requests a second, for some seconds.

Percentiles and throughput come from the times of each request that perf_analyzer exports, not from
its rounded summary. It gives up if no request ends in one of its windows; such a load is repeated
for longer.
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from adprior_bench.server.perf_analyzer import PerfAnalyzer
from adprior_bench.server.running_server import call_metadata
from adprior_client import ClientConfig
from adprior_runtime.errors import AdpriorError
from adprior_runtime.server.processes import blank_arguments

_WINDOWS: Final = 3
"""perf_analyzer measures in windows and reports them together."""

_LONGER: Final = 4
_TRIES: Final = 3
"""A load that is too short is repeated, each time four times as long."""

_NONE_ANSWERED: Final = "no request was answered in the windows"
_TOO_SHORT: Final = (
    _NONE_ANSWERED,
    "No valid requests recorded within time interval",
    # It compares a model's statistics at the ends of a window, and finds none.
    "failed to find the requested model version",
)
_ANY_PERCENT: Final = "1000000"
_START_S: Final = 60
_POLL_S: Final = 0.002
_VISIBLE: Final = (
    "adprior bench server: while perf_analyzer runs, all users of this machine can read the token "
    "in its arguments, which cannot be blanked here"
)


class Mode(StrEnum):
    """The way in which requests are sent."""

    CLOSED = "closed"
    """A fixed number in flight: the next one is sent when one is answered."""

    OPEN = "open"
    """A Poisson process: a mean number a second, whether or not earlier ones are answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A load to send.

    Attributes:
        model: The model that answers.
        mode: The way in which requests are sent.
        value: Requests in flight (closed), or requests a second (open).
        seconds: Duration of all windows together.
    """

    model: str
    mode: Mode
    value: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """The figures of a load.

    Attributes:
        requests: Requests answered within the windows.
        throughput: Answers a second.
        p50_ms, p95_ms, p99_ms: Percentiles of the latency that perf_analyzer measured.
        generator_cpu_s: CPU seconds of perf_analyzer itself, from start to end.
        problem: The reason why perf_analyzer gave no figures; empty otherwise.
    """

    requests: int = 0
    throughput: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    generator_cpu_s: float = 0.0
    problem: str = ""


def run_load(
    analyzer: PerfAnalyzer, connection: ClientConfig, input_data: Path, load: Load
) -> LoadResult:
    """Put a load on a server; repeat it for longer if it was too short.

    Raises:
        AdpriorError: perf_analyzer hangs, or its export cannot be read.
    """
    for last in range(_TRIES - 1, -1, -1):
        result = _run_once(analyzer, connection, input_data, load)
        if not last or not any(problem in result.problem for problem in _TOO_SHORT):
            break
        load = replace(load, seconds=_LONGER * load.seconds)
    return result


def _run_once(
    analyzer: PerfAnalyzer, connection: ClientConfig, input_data: Path, load: Load
) -> LoadResult:
    # The export holds users' contexts: only this user can read the directory, which is removed.
    with tempfile.TemporaryDirectory(prefix="adprior-load-") as scratch:
        export = Path(scratch) / "export.json"
        command = [str(analyzer.binary), *_options(load), *analyzer_options(connection)]
        command += ["--input-data", str(input_data), "--profile-export-file", str(export)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with subprocess.Popen(  # noqa: S603
            command,
            env=analyzer.environment(use_proxy=connection.use_proxy),
            cwd=scratch,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            try:
                secrets = list(call_metadata(connection).values())
                if secrets and not _blank_when_connected(process, secrets):
                    print(_VISIBLE, file=sys.stderr)
                output = process.communicate(timeout=_START_S + 10 * load.seconds)
            except subprocess.TimeoutExpired as error:
                raise AdpriorError(
                    f"perf_analyzer did not end within {error.timeout:.0f} s"
                ) from error
            finally:
                process.kill()  # does nothing if it has ended
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if process.returncode or not export.is_file():
            problem = _problem("\n".join(output), process.returncode)
            return LoadResult(generator_cpu_s=cpu_s, problem=problem)
        return _read_export(export, cpu_s)


def _options(load: Load) -> list[str]:
    interval_ms = max(round(1000 * load.seconds / _WINDOWS), 100)
    options = ["-m", load.model, "--measurement-interval", str(interval_ms)]
    # Any three windows count as stable: the benchmark itself reports how much rounds differ.
    options += ["--stability-percentage", _ANY_PERCENT, "--max-trials", str(_WINDOWS)]
    if load.mode is Mode.CLOSED:
        return [*options, "--concurrency-range", str(int(load.value))]
    options += ["--request-rate-range", f"{load.value:.3f}", "--request-distribution", "poisson"]
    # Synchronous workers would wait for answers before they send the next request.
    return [*options, "--async"]


def analyzer_options(connection: ClientConfig) -> list[str]:
    """Return perf_analyzer's options for a server; the metadata's values are secrets."""
    options = ["-u", connection.urls[0], "-i", "grpc"]
    if connection.is_secure:
        options += ["--ssl-grpc-use-ssl", "true"]
    for option, file in (
        ("root-certifications", connection.tls_ca_file),
        ("certificate-chain", connection.tls_certificate_file),
        ("private-key", connection.tls_key_file),
    ):
        options += [] if file is None else [f"--ssl-grpc-{option}-file", str(Path(file).resolve())]
    # perf_analyzer's help says that it sends -H over HTTP only; it sends it over gRPC too.
    for name, value in call_metadata(connection).items():
        options += ["-H", f"{name}:{value}"]
    return options


def _blank_when_connected(process: subprocess.Popen[str], secrets: list[str]) -> bool:
    """Remove secrets from perf_analyzer's arguments, which other users can list.

    perf_analyzer accepts them in no other way. Once it connects, it has read its arguments.

    Returns:
        Whether the secrets, or the process, are gone from the list of processes.
    """
    deadline = time.monotonic() + _START_S
    with contextlib.suppress(psutil.Error):
        analyzer = psutil.Process(process.pid)
        while process.poll() is None:
            if time.monotonic() > deadline:
                return False
            if analyzer.net_connections("tcp"):
                return blank_arguments(process.pid, secrets)
            time.sleep(_POLL_S)
    return process.poll() is not None


def _read_export(path: Path, cpu_s: float) -> LoadResult:
    try:
        # Outputs are exported as raw bytes, which are not UTF-8.
        document = json.loads(path.read_bytes().decode("latin-1"))
        (experiment,) = document["experiments"]
        return _summarise(experiment, cpu_s)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise AdpriorError(
            f"perf_analyzer's export cannot be read ({type(error).__name__})"
        ) from error


def _summarise(experiment: dict[str, Any], cpu_s: float) -> LoadResult:
    begin, *_, end = experiment["window_boundaries"]
    sent = np.array([item["timestamp"] for item in experiment["requests"]], dtype=np.int64)
    answered = np.array(
        [item["response_timestamps"][-1] for item in experiment["requests"]], dtype=np.int64
    )
    counted = (answered >= begin) & (answered < end)
    requests = int(counted.sum())
    if not requests:
        return LoadResult(generator_cpu_s=cpu_s, problem=_NONE_ANSWERED)
    latencies_ms = (answered - sent)[counted] / 1e6
    p50, p95, p99 = np.quantile(latencies_ms, (0.5, 0.95, 0.99)).tolist()
    return LoadResult(
        requests=requests,
        throughput=requests / ((end - begin) / 1e9),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        generator_cpu_s=cpu_s,
    )


def _problem(output: str, status: int) -> str:
    """Return perf_analyzer's error messages, or else its last line, on one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "rror" in line or "ailed" in line] or lines[-1:]
    return "; ".join(errors)[-300:] or f"perf_analyzer ended with status {status}"
