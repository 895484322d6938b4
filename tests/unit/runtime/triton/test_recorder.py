from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

import pytest

from adprior_runtime.triton.metrics import (
    ANSWERS,
    FORECAST_DRIFT,
    MISSING_MASS,
    PROMPT_TOKENS,
    Exactness,
)
from adprior_runtime.triton.recorder import Recorder


class Shown:
    """A series of a server."""

    def __init__(self, act: Callable[[float], object] = float) -> None:
        self.calls: list[tuple[str, float]] = []
        self._act = act

    def increment(self, value: float) -> None:
        self._act(value)
        self.calls.append(("increment", value))

    def set(self, value: float) -> None:
        self.calls.append(("set", value))

    def observe(self, value: float) -> None:
        self.calls.append(("observe", value))


def _connected(sinks: Mapping[tuple[str, str], Shown]) -> Recorder:
    recorder = Recorder()
    recorder.connect(sinks)
    return recorder


def test_counts_are_summed_and_passed_on_once() -> None:
    exact, bounded = Shown(), Shown()
    recorder = _connected({(ANSWERS.name, "true"): exact, (ANSWERS.name, "false"): bounded})
    for _ in range(5):
        recorder.count(ANSWERS, value=Exactness.EXACT)
    recorder.count(ANSWERS, 0, Exactness.BOUNDED)
    recorder.flush()
    recorder.flush()
    assert exact.calls == [("increment", 5)]
    assert bounded.calls == []


def test_values_are_passed_on_one_by_one_and_gauges_when_they_change() -> None:
    mass, drift = Shown(), Shown()
    recorder = _connected({(MISSING_MASS.name, ""): mass, (FORECAST_DRIFT.name, ""): drift})
    now = iter([0.5, 0.75, 0.75])
    recorder.follow(FORECAST_DRIFT, lambda: next(now))
    for value in (0.1, 0.2):
        recorder.observe(MISSING_MASS, value)
    for _ in range(3):
        recorder.flush()
    assert mass.calls == [("observe", 0.1), ("observe", 0.2)]
    assert drift.calls == [("set", 0.5), ("set", 0.75)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_never_reach_a_counter(value: float) -> None:
    tokens, mass = Shown(), Shown()
    recorder = _connected({(PROMPT_TOKENS.name, ""): tokens, (MISSING_MASS.name, ""): mass})
    recorder.count(PROMPT_TOKENS, value)
    recorder.observe(MISSING_MASS, value)
    recorder.flush()
    assert tokens.calls == mass.calls == []


def test_a_server_that_takes_no_metric_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_: float) -> None:
        raise RuntimeError("private")

    refusing, taking = Shown(refuse), Shown()
    recorder = _connected({(PROMPT_TOKENS.name, ""): refusing, (MISSING_MASS.name, ""): taking})
    with caplog.at_level(logging.WARNING, logger="adprior"):
        for _ in range(3):
            recorder.count(PROMPT_TOKENS, 7)
            recorder.observe(MISSING_MASS, 0.5)
            recorder.flush()
    assert len(taking.calls) == 3
    assert [record.message for record in caplog.records] == [
        "metrics: adprior_prompt_tokens_total failed: RuntimeError"
    ]


def test_a_gauge_that_cannot_be_read_stops_nothing() -> None:
    tokens, drift = Shown(), Shown()
    recorder = _connected({(PROMPT_TOKENS.name, ""): tokens, (FORECAST_DRIFT.name, ""): drift})
    recorder.follow(FORECAST_DRIFT, lambda: 1 / 0)
    recorder.count(PROMPT_TOKENS, 3)
    recorder.flush()
    assert tokens.calls == [("increment", 3)]
    assert drift.calls == []


def test_an_error_in_counting_does_not_affect_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()

    def divide(answer: int) -> None:
        recorder.count(PROMPT_TOKENS, answer / 0)

    recorder.record(7, divide)
    assert caplog.messages == ["metrics: divide failed: ZeroDivisionError"]


def test_without_series_counts_are_dropped() -> None:
    recorder = Recorder()
    recorder.count(PROMPT_TOKENS, 3)
    recorder.observe(MISSING_MASS, 0.5)
    recorder.follow(FORECAST_DRIFT, lambda: 1.0)
    recorder.start()
    recorder.stop()


def test_the_thread_passes_counts_on_and_stopping_the_rest() -> None:
    handed = threading.Event()
    tokens = Shown(lambda _: handed.set())
    recorder = _connected({(PROMPT_TOKENS.name, ""): tokens})
    recorder.count(PROMPT_TOKENS, 1)
    recorder.start()
    assert handed.wait(20)
    recorder.count(PROMPT_TOKENS, 2)
    recorder.stop()
    assert sum(value for _, value in tokens.calls) == 3
    recorder.count(PROMPT_TOKENS, 4)
    recorder.flush()
    assert sum(value for _, value in tokens.calls) == 3


def test_no_count_is_lost_between_threads() -> None:
    tokens = Shown()
    recorder = _connected({(PROMPT_TOKENS.name, ""): tokens})

    def count() -> None:
        for _ in range(2000):
            recorder.count(PROMPT_TOKENS)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        recorder.flush()
    recorder.flush()
    assert sum(value for _, value in tokens.calls) == 8000


def test_a_server_that_does_not_answer_does_not_block_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adprior_runtime.triton.recorder._LAST_FLUSH_S", 0.01)
    asked, answer = threading.Event(), threading.Event()

    def stall(_: float) -> bool:
        asked.set()
        return answer.wait(60)

    recorder = _connected({(PROMPT_TOKENS.name, ""): Shown(stall)})
    recorder.count(PROMPT_TOKENS, 1)
    recorder.start()
    assert asked.wait(20)
    recorder.stop()
    answer.set()
