from __future__ import annotations

import threading

import pytest

from adprior_runtime.triton.heartbeat import Heartbeat, Standstill


class Clocks:
    """Wall and CPU time of the working thread, which a test sets."""

    def __init__(self) -> None:
        self.wall = self.work = 100.0

    def beating(self) -> Heartbeat:
        return Heartbeat(clock=lambda: self.wall, work_clock=lambda: self.work)

    def run(self, heart: Heartbeat, seconds: float, *, is_computing: bool = False) -> None:
        for _ in range(round(seconds / 0.1)):
            self.wall += 0.1
            self.work += 0.1 if is_computing else 0.0
            heart.beat()

    def stand_still(self, seconds: float) -> None:
        self.wall += seconds


@pytest.mark.parametrize("is_noticed_first", [True, False])
@pytest.mark.parametrize("pause_s", [1.2, 1.6, 2.2, 3, 8])
def test_a_request_during_a_standstill_of_over_a_second_is_lost(
    pause_s: float, is_noticed_first: bool
) -> None:
    clocks = Clocks()
    heart = clocks.beating()
    clocks.run(heart, 1)
    began = clocks.wall
    clocks.run(heart, 0.3)
    clocks.stand_still(pause_s)
    if is_noticed_first:  # by the thread that beats, before the work is done
        clocks.run(heart, 5)
    assert heart.is_given_up(began)


@pytest.mark.parametrize("pause_s", [0.1, 0.3, 0.49])
def test_a_short_pause_is_harmless(pause_s: float) -> None:
    clocks = Clocks()
    heart = clocks.beating()
    began = clocks.wall
    clocks.stand_still(pause_s)
    assert not heart.is_given_up(began)
    assert not heart.is_given_up()


def test_a_request_that_waited_during_the_standstill_is_lost_too() -> None:
    clocks = Clocks()
    heart = clocks.beating()
    clocks.run(heart, 1)
    clocks.stand_still(1.2)
    assert heart.is_given_up()
    clocks.run(heart, 0.1)
    assert heart.is_given_up()


def test_a_standstill_without_a_request_is_harmless() -> None:
    clocks = Clocks()
    heart = clocks.beating()
    clocks.stand_still(8)
    clocks.run(heart, 1)
    assert not heart.is_given_up()
    assert not heart.is_given_up(clocks.wall)


def test_a_thread_that_computes_does_not_stand_still() -> None:
    """A computing thread may block the interpreter and the beats, but not Triton's own signs."""
    clocks = Clocks()
    heart = clocks.beating()
    began = clocks.wall
    clocks.wall += 5
    clocks.work += 4.9
    assert not heart.is_given_up(began)
    clocks.run(heart, 1)
    assert not heart.is_given_up(began)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        # Nothing from 10.0 to 10.8: the looks are at asked + 1, asked + 2 ...
        (9.75, True),  # the look at 10.75 comes before the next sign; the last was before 9.75
        (9.6, False),  # a sign came from 9.7 on
        (10.05, False),  # the look at 11.05 comes after the process went on
        (7.75, True),  # so does the third look
    ],
)
def test_the_moment_of_the_request_decides_whether_a_short_pause_is_fatal(
    asked: float, expected: bool
) -> None:
    assert Standstill(10.0, 10.8).is_fatal(asked, asked) is expected


def test_the_thread_beats_and_ends() -> None:
    beaten = threading.Semaphore(0)

    def tell() -> float:
        beaten.release()
        return 0.0

    heart = Heartbeat(clock=tell, work_clock=lambda: 0.0)
    heart.start()
    for _ in range(20):
        assert beaten.acquire(timeout=60)
    heart.stop()
    assert not [each for each in threading.enumerate() if each.name == "adprior-heartbeat"]
