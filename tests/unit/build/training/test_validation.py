from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from adprior_build.training.loss import Objective
from adprior_build.training.progress import Position
from adprior_build.training.validation import Validation
from unit.build.training.test_loop import CONTRARY, SETTINGS, TAUGHT, fresh_model, nats_a_name

CHECKS = [*TAUGHT, *CONTRARY]
ONE_BY_ONE = replace(SETTINGS, batch_size=1)


def measure(
    position: Position,
    *,
    is_over: Callable[[], bool] = lambda: False,
    after_batch: Callable[[], None] = lambda: None,
) -> float:
    objective = Objective(model=fresh_model())
    validation = Validation(CHECKS, ONE_BY_ONE)
    validation.measure(objective, position, is_over=is_over, after_batch=after_batch)
    return position.checked.per_name


def test_a_validation_that_was_killed_continues_where_it_was() -> None:
    stopped = Position()
    measure(stopped, is_over=lambda: stopped.validated == 5)
    assert stopped.validated == 5
    expected = pytest.approx(nats_a_name(fresh_model(), CHECKS))
    assert measure(stopped) == measure(Position()) == expected
    assert stopped.validated == len(CHECKS)


def test_the_caller_can_save_after_each_batch() -> None:
    position, saved = Position(), list[int]()
    measure(position, after_batch=lambda: saved.append(position.validated))
    assert saved == list(range(1, len(CHECKS) + 1))


def test_at_least_one_batch_is_measured() -> None:
    position = Position()
    measure(position, is_over=lambda: True)
    assert position.validated == 1
