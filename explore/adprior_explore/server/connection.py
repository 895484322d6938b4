"""Work for a browser, cancelled when the browser has gone.

What cancellation reaches: a call that waits for its turn is never made, and the client cancels a
call that waits in Triton's queue. A search that has begun goes on to its end at Triton 2.51, and a
forecast that has its turn keeps it until then (`adprior_explore.turns`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Result = TypeVar("_Result")


class BrowserGoneError(Exception):
    """The browser has closed the connection: nobody reads the answer."""


async def run_while_connected(receive: Receive, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run ``work`` to its end, or cancel it as soon as the browser aborts the request.

    The clients cancel their calls when the task that awaits them is cancelled; see the module for
    what that ends at Triton.

    Args:
        receive: The request's ASGI channel; its body must have been read.
        work: What to run.

    Raises:
        BrowserGoneError: The browser has gone first.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_wait_for_end(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise BrowserGoneError
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _wait_for_end(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
