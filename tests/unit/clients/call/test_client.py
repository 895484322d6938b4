"""Kill switch, control group, priority and metadata of a client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adprior_client import InvalidArgumentError, MetadataError, RankingClient, Reason
from adprior_runtime import contract
from support.client_calls import (
    BASE,
    CANDIDATES,
    SECRET,
    USER,
    Kind,
    assert_harmless,
    every_kind,
)
from support.fake_triton import FakeTriton


@every_kind
def test_a_control_user_is_not_asked_about(triton: FakeTriton, kind: Kind) -> None:
    result = kind.ask(triton.config(), treatment=False)
    assert_harmless(result)
    assert (result.reason, triton.calls) == (Reason.CONTROL, [])


@every_kind
def test_the_kill_switch_is_read_at_each_call(
    triton: FakeTriton, kind: Kind, tmp_path: Path
) -> None:
    switch = tmp_path / "off"
    config = triton.config(kill_switch_file=str(switch))
    with kind.open(config) as client:
        assert client.ask().reason is None
        switch.touch()
        result = client.ask()
    assert_harmless(result)
    assert result.reason is Reason.KILL_SWITCH
    assert kind.ask(triton.config(), parts={"kill_switch": lambda: True}).reason == "kill_switch"
    assert len(triton.calls) == 1


def test_a_kill_switch_that_fails_is_on(triton: FakeTriton) -> None:
    def broken() -> bool:
        raise RuntimeError

    with RankingClient(triton.config(), kill_switch=broken) as client:
        assert client.score(USER, CANDIDATES, BASE).reason is Reason.KILL_SWITCH


@every_kind
@pytest.mark.parametrize("part", ["metadata", "kill_switch"])
def test_a_coroutine_function_is_refused(kind: Kind, part: str) -> None:
    async def function() -> bool:
        return False

    with pytest.raises(InvalidArgumentError, match=f"{part}: found a coroutine function"):
        kind.make("localhost:1", **{part: function})


@every_kind
def test_metadata_may_change_with_each_call(triton: FakeTriton, kind: Kind) -> None:
    tokens = iter(["one", "two"])
    config = triton.config(metadata=(("authorization", "Bearer x"),))
    kind.ask(config, times=2, parts={"metadata": lambda: {"x-token": next(tokens)}})
    assert [call["authorization"] for call in triton.metadata] == ["Bearer x", "Bearer x"]
    assert [call["x-token"] for call in triton.metadata] == ["one", "two"]


@every_kind
def test_bad_metadata_does_not_count_against_the_server(triton: FakeTriton, kind: Kind) -> None:
    def broken() -> dict[str, str]:
        raise OSError(SECRET)

    functions: list[Callable[[], Any]] = [
        broken,
        lambda: {"Upper": "x"},
        lambda: {"a": "line\n"},
        lambda: None,
    ]
    for function in functions:
        config = triton.config(fail_open=True, breaker_failures=1)
        result = kind.ask(config, times=3, parts={"metadata": function})
        assert_harmless(result)
        assert result.reason is Reason.DENIED
        with pytest.raises(MetadataError) as caught:
            kind.ask(triton.config(), parts={"metadata": function})
        assert SECRET not in str(caught.value)
    assert triton.calls == []


@every_kind
@pytest.mark.parametrize("priority", [None, "bulk", "ranking"])
def test_a_call_has_a_priority(kind: Kind, triton: FakeTriton, priority: str | None) -> None:
    default = contract.Priority.RANKING if kind.ranks else contract.Priority.RETRIEVAL
    expected = default if priority is None else contract.Priority[priority.upper()]
    kind.ask(triton.config(priority=priority))
    assert triton.priorities == [expected]


@every_kind
def test_a_token_is_sent_and_not_shown(kind: Kind, triton: FakeTriton, tmp_path: Path) -> None:
    token = "token-0123456789abcdef"
    path = tmp_path / "token"
    path.write_text(f"{token}\n")
    path.chmod(0o600)
    for config in (triton.config(token=token), triton.config(token_file=str(path))):
        kind.ask(config)
        assert triton.metadata[-1]["triton-grpc-protocol-inference-key"] == token
        assert token not in repr(config)
