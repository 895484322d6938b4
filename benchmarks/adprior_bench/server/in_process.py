"""The engine without a server: worker processes that answer the same requests, one after another.

As many workers as the server has engines, each with as many threads. A worker is
``python -m adprior_bench.server.in_process BUNDLE REQUESTS THREADS``: it reads a line of JSON for
each measurement and answers with one.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from adprior_bench.server.scenarios import InProcess, Scenario
from adprior_bench.server.workload import UserRequest
from adprior_runtime.errors import AdpriorError
from adprior_runtime.text.json_text import to_json

_WARM_UP: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcessRate:
    """What workers did.

    Attributes:
        throughput: Requests a second of all workers.
        cpu_s_per_request: CPU seconds, all threads.
    """

    throughput: float
    cpu_s_per_request: float


@dataclass(frozen=True, slots=True)
class InProcessWorkers:
    """Workers that wait to measure."""

    processes: Sequence[subprocess.Popen[str]]

    def measure(self, scenario: Scenario, seconds: float) -> InProcessRate:
        """Let all workers answer at once, each for so many seconds.

        Raises:
            AdpriorError: A worker ended.
        """
        for process in self.processes:
            _write(process, {"scenario": scenario, "seconds": seconds})
        done = [_Done(**json.loads(_read(process))) for process in self.processes]
        return InProcessRate(
            throughput=sum(each.requests / each.wall_s for each in done),
            cpu_s_per_request=sum(each.cpu_s for each in done) / sum(d.requests for d in done),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    requests: int
    wall_s: float
    cpu_s: float


@contextmanager
def start_workers(
    bundle: Path, requests: Path, *, count: int, threads: int
) -> Iterator[InProcessWorkers]:
    """Start workers and stop them afterwards.

    Args:
        bundle: A directory with what the models need.
        requests: A file of requests, a JSON document a line.
        count: How many.
        threads: Of each engine.
    """
    command = [sys.executable, "-m", "adprior_bench.server.in_process"]
    command += [str(bundle), str(requests), str(threads)]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(  # noqa: S603
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(count)
        ]
        for process in processes:
            stack.callback(process.kill)
        for process in processes:
            _read(process)
        yield InProcessWorkers(processes)


def _write(process: subprocess.Popen[str], document: object) -> None:
    if process.stdin is None:
        raise ValueError("no pipe")
    process.stdin.write(to_json(document) + "\n")
    process.stdin.flush()


def _read(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise AdpriorError(f"the engine in-process ended with status {process.wait()}")
    return line


def _work(bundle: Path, requests: Path, threads: int) -> None:
    engine = InProcess(bundle, threads)
    lines = requests.read_text(encoding="utf-8").splitlines()
    asked = [UserRequest.from_json(json.loads(line)) for line in lines]
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        calls = engine.calls(Scenario(order["scenario"]), asked)
        for call in calls[:_WARM_UP]:
            call()
        began, cpu = time.perf_counter(), time.process_time()
        done = 0
        for call in itertools.cycle(calls):
            call()
            done += 1
            if time.perf_counter() - began >= order["seconds"]:
                break
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        print(to_json(asdict(_Done(requests=done, wall_s=wall_s, cpu_s=cpu_s))), flush=True)


if __name__ == "__main__":
    _work(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
