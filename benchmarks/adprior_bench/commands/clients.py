"""``adprior bench clients``: measure the ranking clients' overhead over bare tritonclient."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
from tqdm import tqdm

from adprior_bench.clients.instant_server import BASE_LOGIT
from adprior_bench.options import add_counts
from adprior_bench.report.terminal import figures_table
from adprior_client import (
    Advertiser,
    AsyncRankingClient,
    ClientConfig,
    Forecast,
    RankingClient,
    encoding,
)
from adprior_runtime import contract
from adprior_runtime.repository import model_specs
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
    contract.ADJUSTED_LOGITS,
    contract.CANDIDATE_LOG_PROBS,
    contract.CANDIDATE_STATUS,
    contract.BUNDLE_ID,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_counts(
        parser,
        ("--candidates", 500, "candidates of each call"),
        ("--calls", 2000, "measured calls of each client"),
    )
    parser.add_argument("--json", action="store_true", help="print rows as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure; return the exit code."""
    with _instant_server(args.candidates) as url:
        rows = _measure_blocking(url, args) + asyncio.run(_measure_asyncio(url, args))
    print(to_json(rows, indent=2) if args.json else figures_table(rows, list(rows[0])))
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


def _measure_blocking(url: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    with (
        tritonclient.grpc.InferenceServerClient(url) as bare,
        RankingClient(_config(url)) as client,
    ):
        calls: dict[str, Callable[[], Any]] = {
            "bare tritonclient": lambda: _read(_infer(bare, args.candidates)),
            **_client_calls("RankingClient", client, args.candidates),
        }
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in _track_calls(args, "blocking"):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                times[name].append(1e3 * (time.perf_counter() - start))
    return _rows(times)


async def _measure_asyncio(url: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    async with (
        tritonclient.grpc.aio.InferenceServerClient(url) as bare,
        AsyncRankingClient(_config(url)) as client,
    ):

        async def call_bare() -> None:
            _read(await _infer(bare, args.candidates))

        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "bare tritonclient.grpc.aio": call_bare,
            **_client_calls("AsyncRankingClient", client, args.candidates),
        }
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in _track_calls(args, "asyncio"):
            for name, call in calls.items():
                start = time.perf_counter()
                await call()
                times[name].append(1e3 * (time.perf_counter() - start))
    return _rows(times)


def _track_calls(args: argparse.Namespace, desc: str) -> Any:
    return tqdm(range(args.calls + _WARM_UP), unit="call", desc=desc, leave=False, disable=None)


def _config(url: str) -> ClientConfig:
    return ClientConfig(urls=(url,), fail_open=False, health_interval_s=0)


def _client_calls(name: str, client: Any, candidates: int) -> dict[str, Callable[[], Any]]:
    """Return calls of a ranking client, with arrays and with lists."""
    lists = list(range(candidates)), [BASE_LOGIT] * candidates
    arrays = np.array(lists[0]), np.array(lists[1])
    return {
        f"{name}, arrays": lambda: client.score(_FORECAST, *arrays, user_id=7),
        f"{name}, lists": lambda: client.score(_FORECAST, *lists, user_id=7),
    }


def _infer(bare: Any, candidates: int) -> Any:
    """Send what the clients send, from arrays."""
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
    outputs = [tritonclient.grpc.InferRequestedOutput(name) for name in _OUTPUTS]
    return bare.infer(contract.PRIOR_HEAD, inputs, outputs=outputs, client_timeout=2.0)


def _read(answer: Any) -> None:
    for name in _OUTPUTS:
        answer.as_numpy(name)


def _rows(times: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Return a row for each client; overheads are relative to the first."""
    kept = {name: np.array(values[_WARM_UP:]) for name, values in times.items()}
    bare = next(iter(kept))
    rows = []
    for name, values in kept.items():
        p50, p95, p99 = np.quantile(values, (0.5, 0.95, 0.99)).tolist()
        low, median, high = (None, None, None)
        if name != bare:  # the difference of calls that followed one another
            low, median, high = np.quantile(values - kept[bare], (0.25, 0.5, 0.75)).tolist()
        rows.append(
            {
                "client": name,
                "p50_ms": p50,
                "p95_ms": p95,
                "p99_ms": p99,
                "overhead_ms": median,
                "overhead_ms_low": low,
                "overhead_ms_high": high,
            }
        )
    return rows
