"""Malformed requests neither crash nor hang the server; the models say what is wrong."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import grpc
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from adprior_client import ClientConfig
from adprior_runtime.server.processes import find_model_processes
from adprior_runtime.server.tritonserver import TritonServer
from faults.conftest import Report
from faults.malformed_requests import context_requests, tensor_requests, wire_bytes
from faults.traffic import call_healthy_server
from support.servers import start_server

pytestmark = pytest.mark.triton

HANG_S: Final = 20.0
SHARES: Final = {"contexts": 0.4, "tensors": 0.4, "bytes": 0.2}
# Refusals with another status than INVALID_ARGUMENT: Triton's own, and those of the decoder and the
# head. In an ensemble their inputs come from the engine, so clients must blame the server.
KNOWN: Final = [
    ("INTERNAL", r"^Unable to parse request$"),
    ("NOT_FOUND", r"^Request for unknown model"),
    ("INTERNAL", r"^(output_ids|sequence_length|cum_log_probs|frontier_log_mass): "),
    ("INTERNAL", r"^scored_(log_probs|exact)(\[\d+\])?: "),
]
_BY_TRITON: Final = re.compile(
    r"request id|inference input|failed to get model version|unexpected|expected .* but got"
)


class Wire:
    """A bare gRPC connection that counts the answers."""

    def __init__(self, server: TritonServer) -> None:
        self.server = server
        self.stubs = dict(find_model_processes(server.process.pid))
        self.seen: Counter[str] = Counter()
        self.sent = 0
        self.slowest_s = 0.0
        self._channel = grpc.insecure_channel(server.grpc_address)
        self._infer = self._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    def close(self) -> None:
        self._channel.close()

    def send(self, request: bytes) -> None:
        """Send a request; fail unless it is answered, or refused with an expected status."""
        began = time.monotonic()
        self.sent += 1
        try:
            answer = self._infer(request, timeout=HANG_S)
        except grpc.RpcError as error:
            self._check(error.code().name, error.details() or "")
        else:
            service_pb2.ModelInferResponse.FromString(answer)
            self.seen["OK"] += 1
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    def _check(self, code: str, message: str) -> None:
        if code == "INVALID_ARGUMENT":
            origin = "Triton" if _BY_TRITON.search(message) else "a model"
            self.seen[f"{code}, by {origin}"] += 1
            return
        for known_code, pattern in KNOWN:
            if code == known_code and re.search(pattern, message):
                self.seen[f"{code}: {pattern}"] += 1
                return
        raise AssertionError(f"{code}: {message[:300]}")


@pytest.fixture(scope="module")
def wire(tiny_repository: Any, report: Report) -> Iterator[Wire]:
    with start_server(tiny_repository) as server:
        wire = Wire(server)
        yield wire
        wire.close()
    report.sections["fuzz"] = {
        "requests": wire.sent,
        "statuses": dict(wire.seen),
        "slowest_s": round(wire.slowest_s, 3),
    }


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", SHARES)
def test_malformed_requests_are_answered_or_refused(wire: Wire, is_long: bool, kind: str) -> None:
    strategies: dict[str, st.SearchStrategy[bytes]] = {
        "contexts": context_requests().map(_serialised),
        "tensors": tensor_requests().map(_serialised),
        "bytes": wire_bytes(),
    }

    @seed(20)
    @settings(
        max_examples=int(SHARES[kind] * (10_000 if is_long else 300)),
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(request=strategies[kind])
    def fuzz(request: bytes) -> None:
        wire.send(request)

    fuzz()
    assert wire.server.process.poll() is None
    assert find_model_processes(wire.server.process.pid) == wire.stubs
    assert call_healthy_server(ClientConfig(urls=(wire.server.grpc_address,)))


def _serialised(request: Any) -> bytes:
    data: bytes = request.SerializeToString()
    return data
