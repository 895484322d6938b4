"""``adprior bench clients``: what the clients cost beside bare ``tritonclient``."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
from tqdm import tqdm

from adprior_bench.clients.instant_server import BASE_LOGIT
from adprior_client import (
    Advertiser,
    AsyncRankingClient,
    ClientConfig,
    Forecast,
    RankingClient,
)
from adprior_client._call import encoding
from adprior_runtime import contract
from adprior_runtime.repository import model_specs
from adprior_runtime.terminal.options import positive_integer
from adprior_runtime.terminal.tables import format_table
from adprior_runtime.text.json_text import to_json

EXAMPLE = """example:
  adprior bench clients --candidates 500 --calls 2000"""

_WARM_UP: Final = 100
_FORECAST: Final = Forecast(
    advertisers=tuple(
        Advertiser(advertiser_id=number, name="", log_prob=-3.0 - number / 100)
        for number in range(20)
    ),
    exact=True,
    missing_mass=0.25,
    bundle_id="0123456789ab",
)
_OUTPUTS: Final = (
    contract.ADJUSTMENTS,
    contract.CANDIDATE_LOG_PROBS,
    contract.CANDIDATE_STATUS,
    contract.BUNDLE_ID,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    for option, default, told in (
        ("--candidates", 500, "candidates of a call"),
        ("--calls", 2000, "calls measured of each client"),
    ):
        parser.add_argument(
            option, type=positive_integer, default=default, metavar="N", help=f"{told} ({default})"
        )
    parser.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    """Measure; return the exit code."""
    with _instant_server(args.candidates) as url:
        rows = _measure_blocking(url, args) + asyncio.run(_measure_asyncio(url, args))
    if args.json:
        print(to_json(rows, indent=2))
    else:
        columns = [(name.replace("_", " "), "right") for name in rows[0]]
        columns[0] = ("client", "left")
        cells = [
            [v if isinstance(v, str) else "" if v is None else f"{v:.3f}" for v in row.values()]
            for row in rows
        ]
        print(format_table(columns, cells))  # type: ignore[arg-type]
    return 0


@contextmanager
def _instant_server(candidates: int) -> Iterator[str]:
    command = [sys.executable, "-m", "adprior_bench.clients.instant_server", str(candidates)]
    with subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        if server.stdout is None or server.stdin is None:
            raise RuntimeError
        yield f"127.0.0.1:{int(server.stdout.readline())}"
        server.stdin.close()


def _inputs(candidates: int) -> list[Any]:
    """Return what bare tritonclient sends: arrays that are ready."""
    tensors = encoding.encode_forecast(_FORECAST) | {
        contract.CANDIDATE_ADVERTISER_IDS: np.arange(candidates),
        contract.BASE_LOGITS: np.full(candidates, BASE_LOGIT, dtype=np.float32),
    }
    inputs = []
    for spec in model_specs.model(contract.PRIOR_HEAD, contract.Target.CPU).inputs:
        if spec.name in tensors:
            values = tensors[spec.name][np.newaxis]
            infer_input = tritonclient.grpc.InferInput(spec.name, values.shape, spec.dtype)
            infer_input.set_data_from_numpy(values)
            inputs.append(infer_input)
    return inputs


def _wanted() -> list[Any]:
    return [tritonclient.grpc.InferRequestedOutput(name) for name in _OUTPUTS]


def _measure_blocking(url: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    ids, logits = list(range(args.candidates)), [BASE_LOGIT] * args.candidates
    arrays: Any = (np.array(ids), np.array(logits))
    with (
        tritonclient.grpc.InferenceServerClient(url) as bare,
        RankingClient(ClientConfig(urls=(url,), fail_open=False, health_interval_s=0)) as ours,
    ):

        def call_bare() -> None:
            answer = bare.infer(
                contract.PRIOR_HEAD,
                _inputs(args.candidates),
                outputs=_wanted(),
                client_timeout=2.0,
            )
            for name in _OUTPUTS:
                answer.as_numpy(name)

        calls: dict[str, Callable[[], Any]] = {
            "bare tritonclient": call_bare,
            "RankingClient, arrays": lambda: ours.score(_FORECAST, *arrays, user_id=7),
            "RankingClient, lists": lambda: ours.score(_FORECAST, ids, logits, user_id=7),
        }
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in tqdm(
            range(args.calls + _WARM_UP), unit="call", desc="blocking", leave=False, disable=None
        ):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                times[name].append(1e3 * (time.perf_counter() - start))
    return _rows(times)


async def _measure_asyncio(url: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    ids, logits = list(range(args.candidates)), [BASE_LOGIT] * args.candidates
    arrays: Any = (np.array(ids), np.array(logits))
    config = ClientConfig(urls=(url,), fail_open=False, health_interval_s=0)
    async with (
        tritonclient.grpc.aio.InferenceServerClient(url) as bare,
        AsyncRankingClient(config) as ours,
    ):

        async def call_bare() -> None:
            answer = await bare.infer(
                contract.PRIOR_HEAD,
                _inputs(args.candidates),
                outputs=_wanted(),
                client_timeout=2.0,
            )
            for name in _OUTPUTS:
                answer.as_numpy(name)

        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "bare tritonclient.grpc.aio": call_bare,
            "AsyncRankingClient, arrays": lambda: ours.score(_FORECAST, *arrays, user_id=7),
            "AsyncRankingClient, lists": lambda: ours.score(_FORECAST, ids, logits, user_id=7),
        }
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in tqdm(
            range(args.calls + _WARM_UP), unit="call", desc="asyncio", leave=False, disable=None
        ):
            for name, call in calls.items():
                start = time.perf_counter()
                await call()
                times[name].append(1e3 * (time.perf_counter() - start))
    return _rows(times)


def _rows(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return a row a client; the first is the one that the others are compared with."""
    bare = next(iter(times))
    kept = {name: np.array(values[_WARM_UP:]) for name, values in times.items()}
    rows = []
    for name, values in kept.items():
        difference = values - kept[bare]  # of calls one after the other
        low, median, high = np.quantile(difference, (0.25, 0.5, 0.75)).tolist()
        p50, p95, p99 = np.quantile(values, (0.5, 0.95, 0.99)).tolist()
        rows.append(
            {
                "client": name,
                "p50_ms": p50,
                "p95_ms": p95,
                "p99_ms": p99,
                "overhead_ms": None if name == bare else median,
                "overhead_ms_low": None if name == bare else low,
                "overhead_ms_high": None if name == bare else high,
            }
        )
    return rows
