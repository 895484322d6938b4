from __future__ import annotations

from adprior_client._call.breaker import CircuitBreaker


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _opened(clock: _Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(failures=3, reset_s=1.0, clock=clock)
    for _ in range(3):
        assert breaker.admits()
        breaker.fail()
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    breaker = CircuitBreaker(failures=3, reset_s=1.0, clock=_Clock())
    for failed in (True, True, False, True, True):
        assert breaker.admits()
        (breaker.fail if failed else breaker.succeed)()
    assert not breaker.is_open
    breaker.fail()
    assert breaker.is_open
    assert not breaker.admits()


def test_one_trial_closes_it_or_opens_it_again() -> None:
    clock = _Clock()
    breaker = _opened(clock)
    clock.now += 1.1
    assert [breaker.admits() for _ in range(3)] == [True, False, False]
    breaker.fail()
    assert not breaker.admits()
    clock.now += 1.1
    assert breaker.admits()
    breaker.succeed()
    assert not breaker.is_open
    assert [breaker.admits() for _ in range(3)] == [True, True, True]


def test_a_withdrawn_trial_allows_the_next() -> None:
    clock = _Clock()
    breaker = _opened(clock)
    clock.now += 1.1
    assert breaker.admits()
    breaker.withdraw()
    assert breaker.admits()


def test_a_trial_without_an_outcome_expires() -> None:
    clock = _Clock()
    breaker = _opened(clock)
    clock.now += 1.1
    assert breaker.admits()
    clock.now += 1.1
    assert breaker.admits()


def test_no_trial_while_health_checks_fail() -> None:
    clock = _Clock()
    breaker = _opened(clock)
    breaker.check(is_ready=False)
    breaker.check(is_ready=False)
    clock.now += 60
    assert not breaker.admits()
    breaker.check(is_ready=True)
    assert breaker.is_open  # until a call succeeds
    assert breaker.admits()


def test_two_failed_checks_reject_all_calls() -> None:
    breaker = CircuitBreaker(failures=2, reset_s=1.0, clock=_Clock())
    breaker.check(is_ready=False)
    assert breaker.admits()
    breaker.check(is_ready=True)
    breaker.check(is_ready=False)
    assert breaker.admits()  # only one failed check in a row
    breaker.check(is_ready=False)
    breaker.succeed()  # a call that was under way
    assert breaker.is_open
    assert not breaker.admits()
    breaker.check(is_ready=True)
    assert breaker.admits()
