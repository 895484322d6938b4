"""The server's engine without the server: worker processes answer the same requests in turn.

There are as many workers as the server has engine instances, each with as many threads.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np

from adprior_bench.server.scenarios import Scenario
from adprior_bench.server.workload import UserRequest
from adprior_runtime.bundle import MODEL_FILES
from adprior_runtime.cpu_count import threads_of_each
from adprior_runtime.errors import AdpriorError
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.head.features import KnownForecast
from adprior_runtime.head.head_step import HeadStep
from adprior_runtime.repository.model_specs import ModelTuning

_WARM_UP: Final = 3
_Answer = Callable[[], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcessRate:
    """Requests a second of all workers, and CPU seconds a request of all threads."""

    throughput: float
    cpu_s_per_request: float


class InProcess:
    """Answers the scenarios with the runtime's own modules.

    Args:
        bundle: A directory with the files of `MODEL_FILES` and their manifest.
        threads: Threads of one forward pass, as in the server's engine.
    """

    def __init__(self, bundle: Path, threads: int) -> None:
        files = {name for names in MODEL_FILES.values() for name in names}
        self._forecaster = Forecaster(bundle, threads=threads, files=files)
        self._head = HeadStep(self._forecaster.bundle)

    def calls(self, scenario: Scenario, requests: Sequence[UserRequest]) -> list[_Answer]:
        """Return a function for each request that answers it."""
        prepare = {
            Scenario.RETRIEVAL: self._retrieval,
            Scenario.LIVE_RANKING: self._live_ranking,
            Scenario.STORED_RANKING: self._stored_ranking,
        }[scenario]
        return [prepare(request) for request in requests]

    def _retrieval(self, request: UserRequest) -> _Answer:
        raw = request.context.encode()
        return lambda: self._forecaster.forecast(raw)

    def _live_ranking(self, request: UserRequest) -> _Answer:
        raw = request.context.encode()
        ids = np.array(request.candidate_ids, dtype=np.int64)
        logits = np.array(request.base_logits, dtype=np.float32)

        def rank() -> Any:
            _, priors = self._forecaster.rank(raw, ids)
            return self._head.head.adjust(logits, priors)

        return rank

    def _stored_ranking(self, request: UserRequest) -> _Answer:
        forecast = request.forecast
        if forecast is None:
            raise ValueError("a ranking with a stored forecast needs one")
        advertisers = forecast.advertisers
        known = KnownForecast(
            advertiser_ids=np.array([a.advertiser_id for a in advertisers], dtype=np.int64),
            log_probs=np.array([a.log_prob for a in advertisers], dtype=np.float32),
            missing_mass=forecast.missing_mass,
            exact=forecast.exact,
        )
        ids = np.array(request.candidate_ids, dtype=np.int64)
        logits = np.array(request.base_logits, dtype=np.float32)
        return lambda: self._head.run(known, ids, logits)[0]


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that answers requests, and the pipe to it."""

    process: subprocess.Popen[bytes]
    pipe: Connection

    def send(self, *message: Any) -> None:
        """Send a message; `receive` raises an error if the process has ended."""
        with suppress(BrokenPipeError):
            self.pipe.send(message)

    def receive(self) -> Any:
        """Return the next message.

        Raises:
            AdpriorError: The process has ended.
        """
        try:
            return self.pipe.recv()
        except EOFError as error:
            status = self.process.wait()
            raise AdpriorError(f"the engine in-process ended with status {status}") from error


@contextmanager
def start_workers(
    bundle: Path, requests: Sequence[UserRequest], engine: ModelTuning | None
) -> Iterator[list[Worker]]:
    """Start a worker for each instance of the server's engine; stop them at the end.

    Without ``engine`` there are no workers: a GPU's engine does not run in-process.
    """
    count = 0 if engine is None else engine.instances
    threads = 0 if engine is None else threads_of_each(engine.instances, engine.threads)
    with ExitStack() as stack:
        workers = []
        for _ in range(count):
            pipe, far_end = Pipe()
            command = [sys.executable, "-m", "adprior_bench.server.in_process"]
            process = subprocess.Popen(  # noqa: S603
                [*command, str(far_end.fileno())], pass_fds=[far_end.fileno()]
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            far_end.close()
            workers.append(Worker(process, pipe))
        for worker in workers:
            worker.send(bundle, list(requests), threads)
        for worker in workers:
            worker.receive()  # it is ready
        yield workers


def measure_workers(workers: Sequence[Worker], scenario: Scenario, seconds: float) -> InProcessRate:
    """Let all workers answer at once, each for some seconds.

    Raises:
        AdpriorError: A worker ended.
    """
    for worker in workers:
        worker.send(scenario, seconds)
    counts, wall_s, cpu_s = zip(*(worker.receive() for worker in workers), strict=True)
    return InProcessRate(
        throughput=sum(count / wall for count, wall in zip(counts, wall_s, strict=True)),
        cpu_s_per_request=sum(cpu_s) / sum(counts),
    )


def _work(pipe: Connection) -> None:
    bundle, requests, threads = pipe.recv()
    engine = InProcess(bundle, threads)
    pipe.send("ready")
    with suppress(EOFError):
        while True:
            scenario, seconds = pipe.recv()
            pipe.send(_answer_in_turn(engine.calls(scenario, requests), seconds))


def _answer_in_turn(calls: Sequence[_Answer], seconds: float) -> tuple[int, float, float]:
    """Return the number of answers, wall seconds and CPU seconds."""
    for call in calls[:_WARM_UP]:
        call()
    began, cpu = time.perf_counter(), time.process_time()
    count = 0
    for call in itertools.cycle(calls):
        call()
        count += 1
        if time.perf_counter() - began >= seconds:
            break
    return count, time.perf_counter() - began, time.process_time() - cpu


if __name__ == "__main__":
    _work(Connection(int(sys.argv[1])))
