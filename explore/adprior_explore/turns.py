"""One call at a time: a caller that is gone before its turn asks nothing.

Triton 2.51 does not tell the steps of an ensemble that a call was cancelled: an abandoned search
goes on, and a second one beside it would make both slow. So the next forecast waits for the end of
the running one, and of all edits that were made meanwhile only the last one is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class Turns:
    """Calls in turn; they belong to one event loop."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._running: asyncio.Task[Any] | None = None

    async def take(self, call: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        """Wait for the calls before this one, and make it.

        Args:
            call: Starts the call. It goes on to its end if the caller is cancelled meanwhile.
        """
        await self._turn.acquire()
        task = self._running = asyncio.create_task(call())
        task.add_done_callback(self._end_turn)
        return await asyncio.shield(task)

    def _end_turn(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # nobody may be left to take it
        self._turn.release()

    async def close(self) -> None:
        """Cancel the running call."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
