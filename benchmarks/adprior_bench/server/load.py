"""One load of perf_analyzer's: so many requests in flight, or so many a second, for some seconds.

perf_analyzer sends and times; percentiles and throughput are taken from the times of each request
that it exports, not from its rounded summary. It gives up where one of its windows sees no request
through: a load that short for its server is put on again, for longer.
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

from adprior_bench.server.connection import analyzer_options, sent_metadata
from adprior_bench.server.perf_analyzer import PerfAnalyzer
from adprior_client import ClientConfig
from adprior_runtime.errors import AdpriorError
from adprior_runtime.server.process_arguments import blank_arguments

WINDOWS: Final = 3
"""perf_analyzer measures in three windows and reports them together."""

LONGER: Final = 4
"""So many times as long is a load put on again whose windows saw too little, twice at most."""

_TRIES: Final = 3
_NONE_ANSWERED: Final = "no request was answered in the windows"
_TOO_SHORT: Final = (
    _NONE_ANSWERED,
    "No valid requests recorded within time interval",
    # It compares a model's statistics at a window's ends, and finds none.
    "failed to find the requested model version",
)
_ANY_PERCENT: Final = "1000000"
_START_S: Final = 60
_POLL_S: Final = 0.002
_SHOWN: Final = (
    "perf_analyzer's arguments, which every user of this machine can list, show the token while it "
    "runs: they cannot be blanked here"
)


class Mode(StrEnum):
    """How requests are sent."""

    CLOSED = "closed"
    """The next when one is answered: a number in flight."""

    OPEN = "open"
    """At moments of a Poisson process, whatever is answered: a number a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send.

    Attributes:
        model: Of which model it is asked.
        mode: How.
        value: Requests in flight (closed), or a second (open).
        seconds: For how long it is measured, in all windows together.
    """

    model: str
    mode: Mode
    value: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What came back.

    Attributes:
        requests: Answered within the windows.
        throughput: Requests answered a second.
        p50_ms, p95_ms, p99_ms: From sent to answered, as perf_analyzer saw it.
        generator_cpu_s: CPU seconds of perf_analyzer itself, from start to end.
        problem: Why perf_analyzer gave up, empty where it did not; then there are no figures.
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
    """Put a load on a server, again and for longer where it was too short to see anything.

    Args:
        analyzer: What sends it.
        connection: The server's one address, and what it wants to see.
        input_data: As `scenarios.write_input_data` writes it.
        load: How much.

    Raises:
        AdpriorError: perf_analyzer hangs, or exports what cannot be read.
    """
    for last in range(_TRIES - 1, -1, -1):
        result = _run_once(analyzer, connection, input_data, load)
        if not last or not any(told in result.problem for told in _TOO_SHORT):
            break
        load = replace(load, seconds=LONGER * load.seconds)
    return result


def _run_once(
    analyzer: PerfAnalyzer, connection: ClientConfig, input_data: Path, load: Load
) -> LoadResult:
    # What is exported holds users' contexts: it goes with the directory, which is ours alone.
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
                secrets = list(sent_metadata(connection).values())
                if secrets and not _blank_when_connected(process, secrets):
                    print("adprior bench server: " + _SHOWN, file=sys.stderr)
                said = process.communicate(timeout=_START_S + 10 * load.seconds)
            except subprocess.TimeoutExpired as error:
                raise AdpriorError(
                    f"perf_analyzer did not end within {error.timeout:.0f} s"
                ) from error
            finally:
                process.kill()  # nothing where it has ended
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if process.returncode or not export.is_file():
            problem = _problem("\n".join(said), process.returncode)
            return LoadResult(generator_cpu_s=cpu_s, problem=problem)
        return _read_export(export, cpu_s)


def _options(load: Load) -> list[str]:
    interval_ms = max(round(1000 * load.seconds / WINDOWS), 100)
    options = ["-m", load.model, "--measurement-interval", str(interval_ms)]
    # Any three windows count as stable: what they differ by is ours to tell, between rounds.
    options += ["--stability-percentage", _ANY_PERCENT, "--max-trials", str(WINDOWS)]
    if load.mode is Mode.CLOSED:
        return [*options, "--concurrency-range", str(int(load.value))]
    options += ["--request-rate-range", f"{load.value:.3f}", "--request-distribution", "poisson"]
    # Synchronous workers would wait for answers before they send what is due.
    return [*options, "--async"]


def _blank_when_connected(process: subprocess.Popen[str], secrets: list[str]) -> bool:
    """Take secrets out of the list of processes, once perf_analyzer has read its options.

    It takes them in no other way, and has read them when it connects.

    Returns:
        Whether they are gone from the list; the process, too, may be.
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
        # Outputs are exported as raw bytes, which are no UTF-8.
        document = json.loads(path.read_bytes().decode("latin-1"))
        (experiment,) = document["experiments"]
        return _summarise(experiment, cpu_s)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise AdpriorError(
            f"perf_analyzer exported what cannot be read ({type(error).__name__})"
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


def _problem(said: str, status: int) -> str:
    """Return what perf_analyzer last said, on one line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = [line for line in lines if "rror" in line or "ailed" in line] or lines[-1:]
    return "; ".join(told)[-300:] or f"perf_analyzer ended with status {status}"
