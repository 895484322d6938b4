"""The servers of one zone, simulated in one process: they speak the inference protocol and wait.

``python -m adprior_bench.zones.simulated_zone`` reads its `ZoneSettings` as JSON from its standard
input, prints ``ready`` when all ports listen, and serves until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import grpc
from tritonclient.grpc import service_pb2

from adprior_bench.clients.instant_server import ranking_answer
from adprior_runtime.text.json_text import to_json

_SERVICE: Final = "inference.GRPCInferenceService"


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneSettings:
    """The settings of one zone's servers.

    Attributes:
        ports: The port of each server, on loopback.
        workers: How many requests a server works on at once.
        service_s: Mean time of one request, in seconds; times are exponential.
        longest_queue: A server refuses a request if so many wait already.
        candidates: Candidates of each ranking.
    """

    ports: Sequence[int]
    workers: int
    service_s: float
    longest_queue: int
    candidates: int

    def to_json(self) -> str:
        """Return the settings as one line."""
        return to_json(asdict(self)) + "\n"


class SimulatedServer:
    """One server: a bounded queue in front of some workers, which sleep instead of computing."""

    def __init__(self, settings: ZoneSettings) -> None:
        self._settings = settings
        self._workers = asyncio.Semaphore(settings.workers)
        self._waiting = 0
        self._answer = ranking_answer(settings.candidates)
        self._random = random.Random()  # noqa: S311

    async def infer(self, _request: bytes, context: Any) -> bytes:
        """Answer one ranking, or refuse it as tritonserver's full queue does."""
        if self._waiting >= self._settings.longest_queue:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Exceeds maximum queue size")
        self._waiting += 1
        try:
            await self._workers.acquire()
        finally:
            self._waiting -= 1
        try:
            await asyncio.sleep(self._random.expovariate(1 / self._settings.service_s))
        finally:
            self._workers.release()
        return self._answer

    async def is_ready(self, _request: bytes, _context: Any) -> bytes:
        """Answer a health check."""
        answer: bytes = service_pb2.ServerReadyResponse(ready=True).SerializeToString()
        return answer


async def serve(settings: ZoneSettings) -> None:
    """Serve on all ports until the process ends."""
    servers = []
    for port in settings.ports:
        simulated = SimulatedServer(settings)
        methods = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(simulated.infer),
            "ServerReady": grpc.unary_unary_rpc_method_handler(simulated.is_ready),
        }
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        servers.append(server)
    print("ready", flush=True)
    await asyncio.gather(*(server.wait_for_termination() for server in servers))


if __name__ == "__main__":
    asyncio.run(serve(ZoneSettings(**json.loads(sys.stdin.readline()))))
