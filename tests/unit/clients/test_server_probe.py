"""What a server says about itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
import pytest

from adprior_client import InvalidArgumentError, UnavailableError
from adprior_client.server_probe import ServerProbe
from adprior_runtime import contract
from adprior_runtime.contract import GRPC_KEY_PREFIX, INFERENCE_KEY, ContextCount
from support.client_calls import SECRET
from support.fake_triton import FakeTriton, context_use_tensors

USER = b'{"profile": {"note": "%s"}, "history": [], "as_of": "2024-05-31"}' % SECRET.encode()
_Answer = TypeVar("_Answer")


def _ask(
    triton: FakeTriton, ask: Callable[[ServerProbe], Awaitable[_Answer]], **settings: Any
) -> _Answer:
    async def run() -> _Answer:
        async with ServerProbe(triton.config(**settings)) as probe:
            return await ask(probe)

    return asyncio.run(run())


def test_it_reads_a_context_as_the_server_does(triton: FakeTriton) -> None:
    triton.change(**context_use_tensors(events=3, over_budget=1))
    found = _ask(triton, lambda probe: probe.read_context(USER))
    assert found.bundle_id == "bundle-1"
    assert found.use[ContextCount.OVER_BUDGET] == 1
    ((model, inputs),) = triton.calls
    assert model == contract.TOKENIZER
    assert inputs[contract.USER_CONTEXT].tolist() == [[USER]]


def test_it_counts_requests_and_times(triton: FakeTriton) -> None:
    async def ask_twice(probe: ServerProbe) -> Any:
        before = await probe.read_counters()
        await probe.read_context(USER)
        return before, await probe.read_counters()

    before, after = _ask(triton, ask_twice)
    difference = after[contract.TOKENIZER].since(before[contract.TOKENIZER])
    assert difference.requests == 1
    assert difference.total_s == pytest.approx(0.008)
    assert difference.step_ms()["queue"] == pytest.approx(1)


@pytest.mark.parametrize("ready", [True, False])
def test_it_says_whether_the_server_is_ready(triton: FakeTriton, ready: bool) -> None:
    triton.ready = ready
    assert _ask(triton, lambda probe: probe.is_ready()) is ready


def test_the_token_goes_with_each_call(triton: FakeTriton) -> None:
    _ask(triton, lambda probe: probe.read_context(USER), token="0123456789abcdef")
    key = f"{GRPC_KEY_PREFIX}{INFERENCE_KEY}"
    assert [sent[key] for sent in triton.metadata] == ["0123456789abcdef"]


def test_a_failure_is_the_clients_error(triton: FakeTriton) -> None:
    triton.status = grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(InvalidArgumentError, match=triton.url) as caught:
        _ask(triton, lambda probe: probe.read_context(USER))
    assert SECRET not in str(caught.value)
    triton.stop()
    for ask in (ServerProbe.is_ready, ServerProbe.read_counters):
        with pytest.raises(UnavailableError, match=triton.url):
            _ask(triton, ask)
