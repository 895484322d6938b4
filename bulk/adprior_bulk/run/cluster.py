"""Ray: started for this run or joined, kept quiet, and what it runs.

Ray keeps usage statistics and sends them home unless told not to; here it is told so.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, Final

from adprior_bulk.run.ray_directory import short_directory
from adprior_runtime.engines.processors import available_processors
from adprior_runtime.errors import EnvironmentProblemError, InvalidInputError

_OBJECT_STORE_BYTES: Final = 128 << 20
"""Of a local Ray: only what is to be done and what was done goes through it."""
_IN_FLIGHT: Final = 2
"""Items that an actor has: at one only, it would wait for Ray's next round after each."""
_STARTS_THAT_MAY_FAIL: Final = 20
"""Deaths of workers in a row, while they start, before it is said that they cannot."""


@contextmanager
def connect(address: str | None, workers: int | None) -> Iterator[int]:
    """Start a local Ray, or join a cluster; yield how many workers there are to be.

    A Ray that this process is connected to already is used, and left as it is.

    Args:
        address: Of the cluster; None starts one on this machine, reachable from it alone.
        workers: How many, each with one core; None for as many as there are cores, or for as many
            as this process may use where it starts Ray itself.

    Raises:
        EnvironmentProblemError: There is no such cluster, or it has too few cores.
    """
    with short_directory() as directory, _connected(address, workers, directory) as found:
        yield found


@contextmanager
def _connected(address: str | None, workers: int | None, directory: str | None) -> Iterator[int]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray  # noqa: PLC0415  takes a second, and only a run needs it

    logging.getLogger("ray").setLevel(logging.ERROR)
    joined = ray.is_initialized()
    if not joined:
        local: dict[str, Any] = {
            "num_cpus": workers or available_processors(),
            "object_store_memory": _OBJECT_STORE_BYTES,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": directory,
        }
        try:
            with _without_stderr(), _own_sigterm():
                ray.init(
                    address=address or "local",
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    **({} if address else local),
                )
        except Exception as error:  # its errors share no base
            reason = " ".join(str(error).split())
            raise EnvironmentProblemError(f"Ray at {address or 'local'}: {reason}") from error
    try:
        # Ray prints to standard output what becomes of its workers; that is the summary's.
        with redirect_stdout(sys.stderr):
            yield _fitting(workers, int(ray.cluster_resources().get("CPU", 0)))
    finally:
        if not joined:
            ray.shutdown()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what SIGTERM does: Ray's own handler ends the process with its number for a status."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def map_items(
    items: Sequence[str],
    make: Callable[..., Callable[[str], str]],
    arguments: Sequence[Any],
    *,
    workers: int,
) -> Iterator[str]:
    """Run a function over items on Ray Data's actor pool; yield what it returns, as it comes.

    An actor that dies is started again, and does again what it was at. No more items are under way
    than two for each actor, and only text comes back, so that the object store stays small.

    Args:
        items: What to do, named by a text; each goes to one worker.
        make: Called once on each worker; returns the function.
        arguments: For ``make``.
        workers: How many actors, of one core each.

    Raises:
        EnvironmentProblemError: Ray lost what it cannot replace.
    """
    import ray.data  # noqa: PLC0415

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_consecutive_actor_init_deaths = _STARTS_THAT_MAY_FAIL
    context.execution_no_progress_timeout_s = -1  # a shard may take long; fleets have a patience
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if not items:
        return
    done = ray.data.from_items(
        [{"item": item} for item in items], override_num_blocks=len(items)
    ).map_batches(
        _Worker,
        fn_constructor_args=(make, tuple(arguments)),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(
            size=min(workers, len(items)), max_tasks_in_flight_per_actor=_IN_FLIGHT
        ),
        num_cpus=1,
    )
    try:
        for row in done.iter_rows():
            yield row["done"]
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1:] or [""]
        raise EnvironmentProblemError(
            f"Ray gave up: {type(error).__name__}: {reason[0].strip()}; start the run again, "
            "and it goes on"
        ) from error


class _Worker:
    """An actor of the pool."""

    def __init__(self, make: Callable[..., Callable[[str], str]], arguments: Sequence[Any]) -> None:
        self._do = make(*arguments)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        return {"done": [self._do(str(item)) for item in batch["item"]]}


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Keep a library's native code from writing to standard error; its exceptions tell enough."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _fitting(workers: int | None, cores: int) -> int:
    if workers is not None and workers > cores:
        raise InvalidInputError(f"--workers {workers}: Ray has {cores} cores, one for each worker")
    if cores < 1:
        raise EnvironmentProblemError("Ray has no cores")
    return workers or cores
