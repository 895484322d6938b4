"""Everything that a server can do wrong, through every kind of client."""

from __future__ import annotations

import logging
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from adprior_client import (
    BadAnswerError,
    CancelledError,
    ClientConfig,
    ClientError,
    DeadlineError,
    DeniedError,
    InvalidArgumentError,
    OverloadedError,
    Reason,
    UnavailableError,
)
from adprior_runtime import contract
from support.client_calls import KINDS, SECRET, Kind, assert_harmless, every_kind
from support.fake_triton import FakeTriton, urls_of

STATUSES: dict[grpc.StatusCode, tuple[type[ClientError], str, int]] = {
    # status: the error, the reason, the attempts of three allowed
    grpc.StatusCode.CANCELLED: (CancelledError, "cancelled", 1),
    grpc.StatusCode.UNKNOWN: (BadAnswerError, "bad_answer", 1),
    grpc.StatusCode.INVALID_ARGUMENT: (InvalidArgumentError, "refused", 1),
    grpc.StatusCode.DEADLINE_EXCEEDED: (DeadlineError, "deadline", 1),
    grpc.StatusCode.NOT_FOUND: (UnavailableError, "unavailable", 1),
    grpc.StatusCode.ALREADY_EXISTS: (BadAnswerError, "bad_answer", 1),
    grpc.StatusCode.PERMISSION_DENIED: (DeniedError, "denied", 1),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (OverloadedError, "unavailable", 3),
    grpc.StatusCode.FAILED_PRECONDITION: (BadAnswerError, "bad_answer", 1),
    grpc.StatusCode.ABORTED: (BadAnswerError, "bad_answer", 1),
    grpc.StatusCode.OUT_OF_RANGE: (BadAnswerError, "bad_answer", 1),
    grpc.StatusCode.UNIMPLEMENTED: (BadAnswerError, "bad_answer", 1),
    grpc.StatusCode.INTERNAL: (BadAnswerError, "bad_answer", 1),
    grpc.StatusCode.UNAVAILABLE: (UnavailableError, "unavailable", 3),
    grpc.StatusCode.DATA_LOSS: (BadAnswerError, "bad_answer", 1),
    grpc.StatusCode.UNAUTHENTICATED: (DeniedError, "denied", 1),
}


def test_the_table_has_every_status() -> None:
    assert STATUSES.keys() == set(grpc.StatusCode) - {grpc.StatusCode.OK}


@every_kind
@pytest.mark.parametrize("status", STATUSES, ids=lambda status: status.name)
def test_every_status(triton: FakeTriton, kind: Kind, status: grpc.StatusCode) -> None:
    triton.status = status
    error, reason, attempts = STATUSES[status]
    result = kind.ask(triton.config(fail_open=True))
    assert_harmless(result)
    assert result.reason == reason
    assert len(triton.calls) == attempts
    with pytest.raises(ClientError) as caught:
        kind.ask(triton.config())
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


LEAVING = [
    # Messages of tritonserver 2.51 between SIGTERM and its end, in order.
    (
        grpc.StatusCode.UNAVAILABLE,
        "in ensemble 'advertiser_retrieval', [request id: 1] Server is stopping, scheduler for "
        "model has stopped accepting new inference requests",
    ),
    (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'x' has no available versions"),
]


@every_kind
@pytest.mark.parametrize(("status", "message"), LEAVING)
def test_a_stopping_server_loses_no_call_if_another_runs(
    tritons: list[FakeTriton], kind: Kind, status: grpc.StatusCode, message: str
) -> None:
    # No server has worked on the request, so the next one is asked even with one attempt.
    config = tritons[0].config(max_attempts=1, breaker_failures=10**9, urls=urls_of(tritons))
    for leaving, staying in (tritons, tritons[::-1]):  # one of them is the user's first
        leaving.status, leaving.message, staying.status = status, message, None
        before = len(staying.calls)
        assert kind.ask(config, times=3).reason is None
        assert len(staying.calls) == before + 3
    assert sum(len(server.calls) for server in tritons) > 2 * 3


@every_kind
def test_a_model_that_no_server_has_is_named(tritons: list[FakeTriton], kind: Kind) -> None:
    for server in tritons:
        server.status = grpc.StatusCode.NOT_FOUND
        server.message = "Request for unknown model: 'x' is not found"
    with pytest.raises(UnavailableError, match="unknown model: 'x' is not found"):
        kind.ask(tritons[0].config(urls=urls_of(tritons)))
    assert [len(server.calls) for server in tritons] == [1, 1]


@every_kind
def test_a_slow_answer_misses_the_deadline(triton: FakeTriton, kind: Kind) -> None:
    triton.hold = True
    result = kind.ask(triton.config(fail_open=True), deadline_s=0.1)
    assert_harmless(result)
    assert result.reason is Reason.DEADLINE
    assert triton.cancelled.wait(5)
    with pytest.raises(DeadlineError, match=r"no answer within 0\.\d+ s"):
        kind.ask(triton.config(), deadline_s=0.1)


@every_kind
def test_a_server_that_does_not_listen(kind: Kind) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"127.0.0.1:{free.getsockname()[1]}"
    result = kind.ask(ClientConfig(urls=(url,), health_interval_s=0))
    assert_harmless(result)
    assert result.reason is Reason.UNAVAILABLE


@contextmanager
def _resetting_server() -> Iterator[str]:
    """Accepts connections, reads a little, and resets them."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.recv(64)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@every_kind
def test_a_connection_that_is_reset(kind: Kind) -> None:
    with _resetting_server() as url:
        result = kind.ask(ClientConfig(urls=(url,), health_interval_s=0, deadline_s=5))
    assert_harmless(result)
    assert result.reason is Reason.UNAVAILABLE


def _raw(**changed: Any) -> bytes:
    response = service_pb2.ModelInferResponse(**changed)
    return bytes(response.SerializeToString())


def _described(*, contents: list[bytes]) -> bytes:
    names = {
        contract.BUNDLE_ID: "BYTES",
        contract.ANSWER_VERSION: "BYTES",
        contract.ADVERTISER_IDS: "INT64",
        contract.ADJUSTMENTS: "FP32",
    }
    outputs = [
        service_pb2.ModelInferResponse.InferOutputTensor(name=name, datatype=kind, shape=[1, 1])
        for name, kind in names.items()
    ]
    return _raw(outputs=outputs, raw_output_contents=contents)


@every_kind
@pytest.mark.parametrize(
    "raw",
    [
        b"\xff\xff\xff",
        b"",
        _raw(model_name="another"),
        _described(contents=[]),
        _described(contents=[b"\xff"] * 4),
        _described(contents=[b"\xff\xff\xff\x7fx"] * 4),
    ],
    ids=["no protobuf", "empty", "no outputs", "no contents", "cut short", "wrong lengths"],
)
def test_malformed_bytes(triton: FakeTriton, kind: Kind, raw: bytes) -> None:
    triton.raw = raw
    result = kind.ask(triton.config(fail_open=True))
    assert_harmless(result)
    assert result.reason is Reason.BAD_ANSWER
    with pytest.raises(BadAnswerError):
        kind.ask(triton.config())


NAN, TEXT = np.array([[np.nan] * 3], dtype=np.float32), np.array([[b"\xff"]], dtype=np.object_)
FORECAST_FAULTS: dict[str, Any] = {
    "not a log-probability": {contract.LOG_PROBS: NAN},
    "a mass of 7": {contract.MISSING_MASS: np.array([[7.0]], dtype=np.float32)},
    "another shape": {contract.LOG_PROBS: np.zeros((1, 4), dtype=np.float32)},
    "another rank": {contract.LOG_PROBS: np.zeros(3, dtype=np.float32)},
    "another type": {contract.ADVERTISER_IDS: np.zeros((1, 3), dtype=np.float32)},
}
RANKING_FAULTS: dict[str, Any] = {
    "adjustments that are NaN": {contract.ADJUSTMENTS: NAN},
    "beyond the clamp": {contract.ADJUSTMENTS: np.array([[9, 9, 9]], dtype=np.float32)},
    "too few": {contract.ADJUSTMENTS: np.zeros((1, 2), dtype=np.float32)},
    "a status of 7": {contract.CANDIDATE_STATUS: np.full((1, 3), 7, dtype=np.uint8)},
    "log-probabilities that are NaN": {contract.CANDIDATE_LOG_PROBS: NAN},
    "a clamp that is NaN": {contract.ADJUSTMENT_LIMIT: NAN[:, :1]},
}
BOTH_FAULTS: dict[str, Any] = {
    "another contract": {contract.ANSWER_VERSION: np.array([[b"99"]], dtype=np.object_)},
    "no UTF-8": {contract.BUNDLE_ID: TEXT},
}
FAULTS = [
    pytest.param(kind, change, id=f"{kind.name}-{name}")
    for kind in KINDS
    for faults in ((RANKING_FAULTS if kind.ranks else FORECAST_FAULTS), BOTH_FAULTS)
    for name, change in faults.items()
]


@pytest.mark.parametrize(("kind", "change"), FAULTS)
def test_an_answer_that_breaks_the_contract(
    triton: FakeTriton, kind: Kind, change: dict[str, Any]
) -> None:
    triton.change(**change)
    result = kind.ask(triton.config(fail_open=True))
    assert_harmless(result)
    assert result.reason is Reason.BAD_ANSWER
    with pytest.raises(BadAnswerError):
        kind.ask(triton.config())


@every_kind
def test_a_retry_may_succeed(triton: FakeTriton, kind: Kind) -> None:
    triton.status, triton.failures = grpc.StatusCode.UNAVAILABLE, 2
    assert kind.ask(triton.config()).reason is None
    assert len(triton.calls) == 3


@every_kind
def test_the_breaker_opens_and_nothing_more_is_sent(triton: FakeTriton, kind: Kind) -> None:
    triton.status = grpc.StatusCode.INTERNAL
    result = kind.ask(triton.config(fail_open=True, breaker_failures=2), times=5)
    assert_harmless(result)
    assert result.reason is Reason.BREAKER_OPEN
    assert len(triton.calls) == 2


@every_kind
def test_a_wrong_argument_always_raises(triton: FakeTriton, kind: Kind) -> None:
    config = triton.config(fail_open=True)
    for options in (
        {"deadline_s": 0},
        {"deadline_s": "1"},
        {"user_id": 1.5},
        {"request_id": 7},
        {"request_id": "\ud800"},
        {"deadline_s": 10**400},
        {"treatment": 1},
    ):
        with pytest.raises(InvalidArgumentError, match=next(iter(options))):
            kind.ask(config, **options)
    assert triton.calls == []


@every_kind
@pytest.mark.parametrize("status", [grpc.StatusCode.INTERNAL, None], ids=["failing", "well"])
def test_nothing_about_the_user_is_logged_or_shown(
    triton: FakeTriton, kind: Kind, status: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    triton.status = status
    result = kind.ask(triton.config(fail_open=True, breaker_failures=1), user_id=SECRET)
    assert SECRET not in repr(result)
    if status is not None:
        with pytest.raises(ClientError) as caught:
            kind.ask(triton.config(), user_id=SECRET)
        assert SECRET not in str(caught.value)
    assert SECRET not in caplog.text
    assert all(SECRET not in repr(metadata) for metadata in triton.metadata)
