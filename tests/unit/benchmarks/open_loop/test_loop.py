from __future__ import annotations

import asyncio
import random
import time

import numpy as np
import pytest

from adprior_bench.open_loop.loop import CallRecord, run_open_loop


def _run(rate: float, seconds: float, seed: int, slow_s: float = 0.0) -> list[CallRecord]:
    async def call(draw: random.Random) -> str:
        chosen = draw.random()
        await asyncio.sleep(slow_s)
        return "half" if chosen < 0.5 else ""

    return asyncio.run(
        run_open_loop(
            call,
            rate=rate,
            seed=seed,
            start=time.monotonic(),
            is_over=lambda due_s: due_s >= seconds,
        )
    )


def test_calls_come_at_the_rate_and_are_recorded_with_their_reason() -> None:
    records = _run(2000, 0.5, seed=1)
    assert len(records) == pytest.approx(1000, rel=0.15)
    shares = np.mean([record.reason == "half" for record in records])
    assert shares == pytest.approx(0.5, abs=0.08)
    began = [record.began_s for record in records]
    assert began == sorted(began)
    assert all(record.late_s >= 0 for record in records)


def test_the_same_seed_gives_the_same_calls_however_long_they_take() -> None:
    quick, slow = _run(200, 0.3, seed=3), _run(200, 0.3, seed=3, slow_s=0.2)
    assert [record.reason for record in quick] == [record.reason for record in slow]
    assert all(record.took_s >= 0.2 for record in slow)


def test_a_call_that_raises_ends_the_loop() -> None:
    async def call(_: random.Random) -> str:
        raise ValueError("a bug")

    loop = run_open_loop(call, rate=50, seed=0, start=time.monotonic(), is_over=lambda _: False)
    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(loop)
    assert raised.group_contains(ValueError, match="a bug")
