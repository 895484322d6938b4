from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from adprior_explore.turns import Turns


class Calls:
    """Calls that end when the test says so, and note that they began."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.may_end = asyncio.Event()

    def make(self, name: str) -> Callable[[], Coroutine[Any, Any, str]]:
        async def call() -> str:
            self.begun.append(name)
            await self.may_end.wait()
            if name == "broken":
                raise ValueError(name)
            return name

        return call


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_of_the_edits_during_a_call_only_the_last_is_asked() -> None:
    async def edit() -> None:
        turns, calls = Turns(), Calls()
        edits = []
        for name in ("first", "second", "third"):
            edits.append(asyncio.create_task(turns.take(calls.make(name))))
            await _settle()
        for gone in edits[:2]:
            gone.cancel()
        await _settle()
        assert calls.begun == ["first"]  # it goes on, though nobody waits for it
        calls.may_end.set()
        assert await edits[2] == "third"
        assert calls.begun == ["first", "third"]

    asyncio.run(edit())


def test_a_failed_call_is_its_callers_only(recwarn: pytest.WarningsRecorder) -> None:
    async def edit() -> None:
        turns, calls = Turns(), Calls()
        calls.may_end.set()
        with pytest.raises(ValueError, match="broken"):
            await turns.take(calls.make("broken"))
        abandoned = asyncio.create_task(turns.take(calls.make("broken")))
        await asyncio.sleep(0)
        abandoned.cancel()
        assert await turns.take(calls.make("good")) == "good"

    asyncio.run(edit())
    assert not recwarn.list


def test_closing_ends_the_running_call() -> None:
    async def edit() -> None:
        turns, calls = Turns(), Calls()
        running = asyncio.create_task(turns.take(calls.make("first")))
        await _settle()
        await turns.close()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(edit())
