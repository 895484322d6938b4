from __future__ import annotations

import pytest

from adprior_bench.quality.cohorts import Targets, cohorts
from adprior_runtime.errors import InvalidInputError
from support.quality_cases import case

OFF, OTHER_OFF = -2, -3
CASES = [
    case("a", past=[0, 3, OFF], today=[3, 4, OFF]),
    case("b", past=[1], today=[2], covered=False),
    case("c", past=[], today=[OFF]),
    case("d", past=[OFF], today=[0, 1, OTHER_OFF]),
]


def test_targets_tell_what_the_user_knew_and_what_the_catalogue_lacks() -> None:
    targets = Targets.of(CASES)
    assert targets.users.tolist() == ["a", "b", "c", "d"]
    assert targets.cases.tolist() == [0, 0, 1, 3, 3]
    assert targets.rows.tolist() == [3, 4, 2, 0, 1]
    assert targets.repeated.tolist() == [True, False, False, False, False]
    assert targets.missed_repeated.tolist() == [1, 0, 0, 0]
    assert targets.missed_new.tolist() == [0, 0, 1, 1]


def test_a_cohort_counts_its_own_targets() -> None:
    found = cohorts(Targets.of(CASES))
    assert {name: cohort.counts.tolist() for name, cohort in found.items()} == {
        "all": [3, 1, 1, 3],
        "covered": [3, 0, 1, 3],
        "repeated": [2, 0, 0, 0],
        "new": [1, 1, 1, 3],
    }
    assert found["covered"].cases.tolist() == [True, False, True, True]


def test_no_cases_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="no cases to measure"):
        Targets.of([])
