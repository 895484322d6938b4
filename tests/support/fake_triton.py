"""A KServe v2 gRPC server in this process, which answers with tensors that the test chooses."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.utils import (
    deserialize_bytes_tensor,
    np_to_triton_dtype,
    serialize_byte_tensor,
    triton_to_np_dtype,
)

from adprior_client import ClientConfig
from adprior_runtime import contract
from adprior_runtime.repository.model_specs import model

Tensors = dict[str, NDArray[Any]]

NAMES: Final = ["Acme", "Żabka", "三星"]


def forecast_tensors(**changed: NDArray[Any]) -> Tensors:
    """Return the outputs of a retrieval of three advertisers, batch dimension included."""
    tensors: Tensors = {
        contract.ADVERTISER_IDS: np.array([[7, 2**40, 3]], dtype=np.int64),
        contract.LOG_PROBS: np.array([[-0.5, -1.5, -3.0]], dtype=np.float32),
        contract.ADVERTISER_NAMES: np.array([[n.encode() for n in NAMES]], dtype=np.object_),
        contract.EXACT: np.array([[True]]),
        contract.MISSING_MASS: np.array([[0.125]], dtype=np.float32),
        contract.BUNDLE_ID: np.array([[b"bundle-1"]], dtype=np.object_),
        contract.ANSWER_VERSION: np.array([[contract.CONTRACT_VERSION.encode()]], dtype=np.object_),
    }
    return tensors | changed


def interest_tensors(count: int = 2) -> Tensors:
    """Return the outputs of at most two interests, batch dimension included."""
    tensors: Tensors = {
        contract.INTEREST_IDS: np.array([[12, 11]], dtype=np.int64),
        contract.INTEREST_LOG_PROBS: np.array([[-0.25, -2.0]], dtype=np.float32),
        contract.INTEREST_NAMES: np.array([[b"Tee", "茶".encode()]], dtype=np.object_),
    }
    return {name: values[:, :count] for name, values in tensors.items()}


def ranking_tensors(inputs: Mapping[str, NDArray[Any]], **changed: NDArray[Any]) -> Tensors:
    """Return the outputs of a ranking; the candidates' statuses are 0, 1, 2, 0, 1 ... in turn."""
    base = inputs[contract.BASE_LOGITS]
    status = (np.arange(base.size, dtype=np.uint8) % 3)[np.newaxis]
    off = status == contract.CandidateStatus.NOT_IN_CATALOGUE
    tensors: Tensors = {
        contract.ADJUSTMENTS: np.where(off, 0, 0.25).astype(np.float32),
        contract.CANDIDATE_LOG_PROBS: np.where(off, np.nan, -2.0).astype(np.float32),
        contract.CANDIDATE_STATUS: status,
        contract.PRIOR_FEATURES: np.zeros((1, base.size, 2), dtype=np.float32),
        contract.ADJUSTMENT_LIMIT: np.array([[0.5]], dtype=np.float32),
    }
    return forecast_tensors() | tensors | changed


def context_use_tensors(**counts: int) -> Tensors:
    """Return the tokenizer's counts of a context; by default all of the context is used."""
    found = {name: counts.pop(name.lower(), 0) for name in contract.ContextCount.__members__}
    assert not counts
    tensors: Tensors = {contract.CONTEXT_USE: np.array([list(found.values())], dtype=np.int32)}
    tensors[contract.PROOF_MARGIN] = np.array([[0.25]], dtype=np.float32)
    known = forecast_tensors()
    return tensors | {name: known[name] for name in (contract.BUNDLE_ID, contract.ANSWER_VERSION)}


def _answer(model: str, inputs: Tensors) -> Tensors:
    if model == contract.TOKENIZER:
        return context_use_tensors()
    if model == contract.ADVERTISER_RETRIEVAL:
        return forecast_tensors() | interest_tensors(0)
    return ranking_tensors(inputs)


class FakeTriton:
    """A server that records its calls, and answers or fails as configured.

    Attributes:
        url: Its address.
        answer: Model name and input tensors -> output tensors, batch dimensions included.
        status: If set, the gRPC status of every call.
        message: The message of that status.
        failures: How many calls fail with ``status``; later ones are answered.
        raw: If set, the bytes of every answer.
        hold: If set, calls are answered only once ``release`` is set.
        ready: The answer to a readiness check.
        usual_s: The mean time of its answers, as its statistics say; None before the first one.
        calls: Model name and input tensors of each call.
        metadata: The metadata of each call.
        request_ids: The request id of each call.
        priorities: The priority of each call, 0 without one.
        cancelled: Set when a held call has been cancelled.
    """

    def __init__(self) -> None:
        self.url = ""
        self.answer: Callable[[str, Tensors], Tensors] = _answer
        self.status: grpc.StatusCode | None = None
        self.message = "the server's\nreason"
        self.failures = 10**9
        self.raw: bytes | None = None
        self.hold = False
        self.ready = True
        self.usual_s: float | None = None
        self.release = threading.Event()
        self.calls: list[tuple[str, Tensors]] = []
        self.metadata: list[dict[str, str]] = []
        self.request_ids: list[str] = []
        self.priorities: list[int] = []
        self.cancelled = threading.Event()
        self._server: Any = None

    def config(self, **settings: Any) -> ClientConfig:
        """Return a configuration that raises failures and makes no health checks by default."""
        defaults: dict[str, Any] = {
            "urls": (self.url,),
            "fail_open": False,
            "health_interval_s": 0.0,
            "deadline_s": 10.0,
        }
        return ClientConfig(**(defaults | settings))

    def change(self, **tensors: Any) -> None:
        """Replace outputs of every answer."""
        answer = self.answer
        self.answer = lambda model, inputs: answer(model, inputs) | tensors

    def start(
        self, port: int = 0, *, host: str = "127.0.0.1", credentials: Any = None
    ) -> FakeTriton:
        """Listen, on a free port by default, with TLS if there are credentials."""
        handlers = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(
                self.infer,
                request_deserializer=service_pb2.ModelInferRequest.FromString,
                response_serializer=lambda a: a if isinstance(a, bytes) else a.SerializeToString(),
            ),
            "ServerReady": grpc.unary_unary_rpc_method_handler(
                lambda _request, _context: service_pb2.ServerReadyResponse(ready=self.ready),
                request_deserializer=service_pb2.ServerReadyRequest.FromString,
                response_serializer=service_pb2.ServerReadyResponse.SerializeToString,
            ),
            "ModelStatistics": grpc.unary_unary_rpc_method_handler(
                self.statistics,
                request_deserializer=service_pb2.ModelStatisticsRequest.FromString,
                response_serializer=service_pb2.ModelStatisticsResponse.SerializeToString,
            ),
        }
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=8), options=[("grpc.so_reuseport", 0)]
        )
        handler = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)
        self._server.add_generic_rpc_handlers((handler,))
        place = f"{host}:{port}"
        if credentials is None:
            bound = self._server.add_insecure_port(place)
        else:
            bound = self._server.add_secure_port(place, credentials)
        self.url = f"{host}:{bound}"
        self._server.start()
        return self

    def stop(self) -> None:
        """Stop at once and end calls in progress."""
        self.release.set()
        self._server.stop(grace=None).wait()

    def infer(self, request: Any, context: Any) -> Any:
        """Answer one call."""
        self.metadata.append(dict(context.invocation_metadata()))
        self.request_ids.append(request.id)
        self.priorities.append(int(request.parameters["priority"].uint64_param))
        inputs = {
            tensor.name: _decode(tensor, raw)
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        self.calls.append((request.model_name, inputs))
        if self.hold:
            context.add_callback(self.cancelled.set)
            self.release.wait(timeout=30)
        if self.raw is not None:
            return self.raw
        if self.status is not None and len(self.calls) <= self.failures:
            context.abort(self.status, self.message)
        requested = {output.name for output in request.outputs}
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        for name, values in self.answer(request.model_name, inputs).items():
            if name in requested:
                _encode(response, name, values)
        return response

    def statistics(self, request: Any, _context: Any) -> Any:
        """Return the statistics of a model that has answered four calls, or none.

        Without a model's name: of all models, by the calls so far, each of which took 8 ms, with
        1 ms in the queue and 2 ms in each model of its steps.
        """
        response = service_pb2.ModelStatisticsResponse()
        if not request.name:
            for name, count in self._count_requests().items():
                times = response.model_stats.add(name=name, execution_count=count).inference_stats
                times.success.count, times.success.ns = count, 8_000_000 * count
                times.queue.ns, times.compute_infer.ns = 1_000_000 * count, 2_000_000 * count
            return response
        done = response.model_stats.add(name=request.name).inference_stats.success
        if self.usual_s is not None:
            done.count, done.ns = 4, int(4e9 * self.usual_s)
        return response

    def _count_requests(self) -> Counter[str]:
        """Return the number of requests of each model, with the steps of the ensembles."""
        counts = Counter(dict.fromkeys(contract.MODEL_NAMES, 0))
        for name, _ in self.calls:
            counts.update((name, *model(name, contract.Target.CPU).steps))
        return counts


def _decode(tensor: Any, raw: bytes) -> NDArray[Any]:
    if tensor.datatype == "BYTES":
        values = deserialize_bytes_tensor(raw)
    else:
        values = np.frombuffer(raw, dtype=triton_to_np_dtype(tensor.datatype))
    return np.asarray(values).reshape(list(tensor.shape))


def _encode(response: Any, name: str, values: NDArray[Any]) -> None:
    datatype = np_to_triton_dtype(values.dtype)
    response.outputs.add(name=name, datatype=datatype, shape=values.shape)
    if datatype == "BYTES":
        packed = serialize_byte_tensor(values)
        response.raw_output_contents.append(packed.item() if packed.size else b"")
    else:
        response.raw_output_contents.append(values.tobytes())


@contextmanager
def running_tritons(count: int) -> Iterator[list[FakeTriton]]:
    servers = [FakeTriton().start() for _ in range(count)]
    try:
        yield servers
    finally:
        for server in servers:
            server.stop()


def urls_of(servers: Iterable[FakeTriton]) -> tuple[str, ...]:
    return tuple(server.url for server in servers)


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    with running_tritons(1) as [server]:
        yield server


@pytest.fixture
def tritons() -> Iterator[list[FakeTriton]]:
    with running_tritons(2) as servers:
        yield servers
