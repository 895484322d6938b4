"""The server's memory does not grow under a mixed load, after a warm-up."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from adprior_client import ClientConfig, RankingClient, RetrievalClient
from adprior_runtime.contract import ADVERTISER_DECODER, LLM_ENGINE, PRIOR_HEAD, TOKENIZER
from adprior_runtime.server.processes import find_model_processes
from faults.conftest import Report
from faults.traffic import Request, call_healthy_server
from support.servers import Served

pytestmark = pytest.mark.triton

MAX_GROWTH = 0.02
CALLERS, CALLER_HZ = 4, 5.0
SHARES = {"retrieval": 30, "live": 25, "stored": 30, "given up": 10, "refused": 5}


@pytest.mark.timeout(1200)
def test_memory_does_not_grow(tiny_served: Served, is_long: bool, report: Report) -> None:
    warm_up_s, duration_s, window_s = (180, 900, 60) if is_long else (1.0, 4.0, 1.0)
    stop = threading.Event()
    server = tiny_served.server
    with ThreadPoolExecutor(CALLERS) as pool:
        config = ClientConfig(urls=(server.grpc_address,), deadline_s=10)
        requests = call_healthy_server(config)
        processes = {"tritonserver": [psutil.Process(server.process.pid)]}
        for pid, model in find_model_processes(server.process.pid).items():
            processes.setdefault(model, []).append(psutil.Process(pid))
        callers = [pool.submit(_call_on, config, requests, stop, seed) for seed in range(CALLERS)]
        try:
            time.sleep(warm_up_s)
            first = _resident_mib(processes, window_s)
            time.sleep(duration_s - warm_up_s - 2 * window_s)
            last = _resident_mib(processes, window_s)
        finally:
            stop.set()
        outcomes = sum((caller.result() for caller in callers), Counter[tuple[str, str]]())
    growth = sum(last.values()) / sum(first.values()) - 1
    calls = {f"{kind}: {outcome}": count for (kind, outcome), count in outcomes.items()}
    report.sections["memory"] = {
        "calls": calls, "first_mib": first, "last_mib": last, "growth": growth,
    }  # fmt: skip
    assert first.keys() == {"tritonserver", TOKENIZER, LLM_ENGINE, ADVERTISER_DECODER, PRIOR_HEAD}
    assert sum(n for (_, end), n in outcomes.items() if end == "answered") > outcomes.total() / 2
    if is_long:
        assert {kind for kind, _ in outcomes} == SHARES.keys()
        assert growth < MAX_GROWTH


def _resident_mib(processes: dict[str, list[psutil.Process]], window_s: float) -> dict[str, float]:
    """Return the median resident memory of each model's processes during a window."""
    samples: dict[str, list[int]] = {name: [] for name in processes}
    end = time.monotonic() + window_s
    while time.monotonic() < end:
        for name, each in processes.items():
            samples[name].append(sum(process.memory_info().rss for process in each))
        time.sleep(min(1.0, window_s / 4))
    return {name: statistics.median(values) / 2**20 for name, values in samples.items()}


def _call_on(
    config: ClientConfig, requests: list[Request], stop: threading.Event, seed: int
) -> Counter[tuple[str, str]]:
    """Return the number of calls by kind and outcome."""
    outcomes = Counter[tuple[str, str]]()
    draw = random.Random(seed)
    with RetrievalClient(config) as retrieval, RankingClient(config) as ranking:
        while not stop.wait(draw.expovariate(CALLER_HZ)):
            (kind,) = draw.choices([*SHARES], [*SHARES.values()])
            request = draw.choice(requests)
            user = _shorten(request.user, draw)
            candidates = request.candidates, request.base
            result: Any
            match kind:
                case "retrieval":
                    result = retrieval.forecast(user, draw.choice([None, 5, 50]))
                case "live":
                    result = ranking.score(user, *candidates)
                case "stored":
                    result = ranking.score(request.forecast, *candidates)
                case "given up":
                    result = ranking.score(user, *candidates, deadline_s=0.005)
                case _:  # only the server knows that a profile is too long for the prompt
                    profile = {f"key{n}": "value " * 40 for n in range(draw.randrange(200, 400))}
                    result = retrieval.forecast({"as_of": "2022-12-01", "profile": profile})
            outcomes[kind, str(result.reason or "answered")] += 1
    return outcomes


def _shorten(user: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """Return a user with a random part of the history, so that prompts differ."""
    history = user.get("history", [])
    return {**user, "history": history[draw.randrange(len(history) + 1) :]}
