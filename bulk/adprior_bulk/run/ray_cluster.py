"""Ray: start it for a run or join a cluster, keep it quiet, and map a function over items.

By default Ray sends usage statistics to its makers; this module turns that off.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, Final

from adprior_bulk.run.ray_directory import short_directory
from adprior_runtime.cpu_count import available_processors
from adprior_runtime.errors import EnvironmentProblemError, InvalidInputError

_OBJECT_STORE_BYTES: Final = 128 << 20
"""Size of a local Ray's object store. It holds only shard numbers and records."""
_IN_FLIGHT: Final = 2
"""Items per actor. With one, an actor would wait for Ray's next scheduling round after each."""
_FAILED_STARTS: Final = 20
"""Consecutive deaths of starting workers after which the run fails."""


@contextmanager
def connect(address: str | None, workers: int | None, gpus: int = 0) -> Iterator[int]:
    """Start a local Ray, or join a cluster; yield the number of workers.

    If this process is already connected to a Ray, that one is used and left running.

    Args:
        address: Address of the cluster; None starts Ray on this machine, on loopback only.
        workers: Number of workers, each with one core. None uses all cores of the cluster; on a
            local Ray, all cores that this process may use.
        gpus: GPUs that each worker needs, 0 or 1.

    Raises:
        EnvironmentProblemError: There is no such cluster, or it has no cores, or no GPUs.
        InvalidInputError: It has fewer cores, or GPUs, than ``workers`` need.
    """
    with short_directory() as directory, _connected(address, workers, directory) as resources:
        yield _choose_workers(workers, resources, gpus)


@contextmanager
def _connected(
    address: str | None, workers: int | None, directory: str | None
) -> Iterator[dict[str, float]]:
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
            with _without_stderr(), _keep_sigterm_handler():
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
        # Ray reports on its workers on standard output, which is reserved for the summary.
        with redirect_stdout(sys.stderr):
            yield ray.cluster_resources()
    finally:
        if not joined:
            ray.shutdown()


@contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Restore the SIGTERM handler: Ray's own exits with the signal's number as the status."""
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
    gpus: int = 0,
) -> Iterator[str]:
    """Run a function over items on Ray Data's actor pool; yield its results as they arrive.

    An actor that dies is started again and repeats its items. Each actor has at most two items, and
    results are text, so that the object store stays small.

    Args:
        items: The function's arguments; each goes to one worker.
        make: Called once on each worker; returns the function.
        arguments: Arguments of ``make``.
        workers: Number of actors, with one core each.
        gpus: GPUs of each; Ray shows an actor no others.

    Raises:
        EnvironmentProblemError: Ray lost something that it cannot replace.
    """
    import ray.data  # noqa: PLC0415

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_consecutive_actor_init_deaths = _FAILED_STARTS
    context.execution_no_progress_timeout_s = -1  # shards may be slow
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
        num_gpus=gpus,
    )
    try:
        for row in done.iter_rows():
            yield row["done"]
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1:] or [""]
        raise EnvironmentProblemError(
            f"Ray gave up: {type(error).__name__}: {reason[0].strip()}; start the run "
            "again and it will continue"
        ) from error


class _Worker:
    """An actor of the pool."""

    def __init__(self, make: Callable[..., Callable[[str], str]], arguments: Sequence[Any]) -> None:
        self._do = make(*arguments)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        return {"done": [self._do(str(item)) for item in batch["item"]]}


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Silence native code that writes to standard error; its exceptions say enough."""
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


def _choose_workers(workers: int | None, resources: Mapping[str, float], gpus: int) -> int:
    found = {"cores": int(resources.get("CPU", 0))}
    if gpus:
        found["GPUs"] = int(resources.get("GPU", 0))
    for kind, count in found.items():
        if not count:
            advice = "; use --device cpu, or a cluster with GPUs" if kind == "GPUs" else ""
            raise EnvironmentProblemError(f"Ray has no {kind}{advice}")
        if workers is not None and workers > count:
            raise InvalidInputError(
                f"--workers {workers}: Ray has {count} {kind}, one for each worker"
            )
    return workers or min(found.values())
