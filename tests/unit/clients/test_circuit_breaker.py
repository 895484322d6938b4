from __future__ import annotations

from adprior_client.circuit_breaker import CircuitBreaker


class _Breaker(CircuitBreaker):
    """A breaker that opens after three failures, with a clock of the test."""

    def __init__(self) -> None:
        self.now = 100.0
        super().__init__(failures=3, reset_s=1.0, clock=lambda: self.now)

    def call(self, *outcomes: bool) -> None:
        for succeeds in outcomes:
            assert self.admits()
            (self.succeed if succeeds else self.fail)()

    def admissions(self, wait_s: float = 0.0, count: int = 1) -> list[bool]:
        self.now += wait_s
        return [self.admits() for _ in range(count)]


def _opened() -> _Breaker:
    breaker = _Breaker()
    breaker.call(False, False, False)
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    breaker = _Breaker()
    breaker.call(False, False, True, False, False)
    assert not breaker.is_open
    breaker.fail()
    assert breaker.is_open
    assert breaker.admissions() == [False]


def test_one_trial_closes_it_or_opens_it_again() -> None:
    breaker = _opened()
    assert breaker.admissions(1.1, count=3) == [True, False, False]
    breaker.fail()
    assert breaker.admissions() == [False]
    assert breaker.admissions(1.1) == [True]
    breaker.succeed()
    assert not breaker.is_open
    assert breaker.admissions(count=3) == [True, True, True]


def test_a_withdrawn_trial_allows_the_next() -> None:
    breaker = _opened()
    assert breaker.admissions(1.1) == [True]
    breaker.withdraw()
    assert breaker.admissions() == [True]


def test_a_trial_without_an_outcome_expires() -> None:
    breaker = _opened()
    assert breaker.admissions(1.1) == breaker.admissions(1.1) == [True]


def test_no_trial_while_health_checks_fail() -> None:
    breaker = _opened()
    breaker.check(is_ready=False)
    breaker.check(is_ready=False)
    assert breaker.admissions(60) == [False]
    breaker.check(is_ready=True)
    assert breaker.is_open  # until a call succeeds
    assert breaker.admissions() == [True]


def test_two_failed_checks_reject_all_calls() -> None:
    breaker = _Breaker()
    for is_ready in (False, True, False):
        breaker.check(is_ready=is_ready)
        assert breaker.admissions() == [True]  # never two failed checks in a row
    breaker.check(is_ready=False)
    breaker.succeed()  # a call that was under way
    assert breaker.is_open
    assert breaker.admissions() == [False]
    breaker.check(is_ready=True)
    assert breaker.admissions() == [True]
