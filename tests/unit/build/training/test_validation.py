from __future__ import annotations

from dataclasses import replace

import pytest

from adprior_build.training.position import Position
from adprior_build.training.validation import Validation
from unit.build.training.test_loop import CONTRARY, SETTINGS, TAUGHT, fresh_model, mean_loss

CHECKS = [*TAUGHT, *CONTRARY]
ONE_BY_ONE = replace(SETTINGS, batch_size=1)


def look(position: Position, *, most: int | None = None) -> float:
    """Look until so many batches are done; return the mean loss of those."""
    return Validation(CHECKS, ONE_BY_ONE).look(
        fresh_model(),
        position,
        is_over=lambda: position.checked == most,
        keep=lambda: None,
    )


def test_a_look_that_was_killed_goes_on_where_it_was() -> None:
    stopped = Position()
    look(stopped, most=5)
    assert stopped.checked == 5
    assert look(stopped) == look(Position()) == pytest.approx(mean_loss(fresh_model(), CHECKS))
    assert stopped.checked == len(CHECKS)


def test_the_state_may_be_kept_after_each_batch() -> None:
    position, kept = Position(), []
    validation = Validation(CHECKS, ONE_BY_ONE)
    validation.look(
        fresh_model(),
        position,
        is_over=lambda: False,
        keep=lambda: kept.append(position.checked),
    )
    assert kept == list(range(1, len(CHECKS) + 1))


def test_one_batch_is_looked_at_in_any_case() -> None:
    position = Position()
    Validation(CHECKS, ONE_BY_ONE).look(
        fresh_model(), position, is_over=lambda: True, keep=lambda: None
    )
    assert position.checked == 1
