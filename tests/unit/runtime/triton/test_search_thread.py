from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from adprior_runtime.engines.base import LogProbs
from adprior_runtime.engines.packed_tree import PackedTreeEngine, UserPass
from adprior_runtime.engines.pass_loop import SharedPasses
from adprior_runtime.triton.search_thread import SearchThread


class GatedPasses:
    """Passes of no model; each notes its users and waits for a permit."""

    def __init__(self) -> None:
        self.users: list[int] = []
        self.permits = threading.Semaphore(0)
        self.has_begun = threading.Semaphore(0)

    def empty_cache(self) -> Any:
        return None

    def start(self, parts: Sequence[UserPass]) -> Callable[[], list[LogProbs]]:
        def wait() -> list[LogProbs]:
            self.users.append(len(parts))
            self.has_begun.release()
            assert self.permits.acquire(timeout=20)
            return [np.zeros(1, dtype=np.float32) for _ in parts]

        return wait


@pytest.fixture
def passes() -> GatedPasses:
    return GatedPasses()


@pytest.fixture
def searches(passes: GatedPasses) -> Iterator[SearchThread]:
    thread = SearchThread(most=2)
    yield thread
    passes.permits.release(100)
    thread.stop()


def _search(passes: GatedPasses, name: str, answers: list[str]) -> Callable[[], None]:
    engine = PackedTreeEngine(SharedPasses(passes), vocabulary=9, max_positions=9)

    def search() -> None:
        engine.prefill([1, 2], [3])
        answers.append(name)

    return search


def test_later_searches_join_and_more_than_have_room_wait(
    passes: GatedPasses, searches: SearchThread
) -> None:
    answers: list[str] = []
    searches.begin([_search(passes, "first", answers)])
    assert passes.has_begun.acquire(timeout=20)
    names = ("second", "third", "fourth")
    later = threading.Thread(
        target=searches.begin, args=([_search(passes, name, answers) for name in names],)
    )
    later.start()
    passes.permits.release()  # the first one ends, and two have room
    assert passes.has_begun.acquire(timeout=20)
    assert (passes.users, answers) == ([1, 2], ["first"])
    assert later.is_alive()  # the fourth has no room yet
    passes.permits.release()
    assert passes.has_begun.acquire(timeout=20)
    later.join(20)
    assert not later.is_alive()
    assert passes.users == [1, 2, 1]
    assert searches.clock() > 0


def test_stopping_waits_for_the_last_search(passes: GatedPasses) -> None:
    thread, answers = SearchThread(), list[str]()
    thread.begin([_search(passes, "only", answers)])
    stopping = threading.Thread(target=thread.stop)
    stopping.start()
    assert passes.has_begun.acquire(timeout=20)
    assert (stopping.is_alive(), answers) == (True, [])
    worked = thread.clock()
    passes.permits.release()
    stopping.join(20)
    assert (stopping.is_alive(), answers) == (False, ["only"])
    assert thread.clock() >= worked > 0  # it has ended


def test_a_process_whose_searches_fail_ends_with_one_line() -> None:
    program = (
        "from adprior_runtime.triton.search_thread import SearchThread\n"
        "SearchThread().begin([lambda: 1 / 0])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 75
    assert found.stderr == "the searches' thread: ZeroDivisionError: the process ends\n"
