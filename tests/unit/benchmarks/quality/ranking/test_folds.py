from __future__ import annotations

import numpy as np

from adprior_bench.quality.ranking.folds import FOLDS, case_folds, fold_of
from support.encoded_users import CUT, cases_of, user


def test_folds_are_of_users_and_about_even() -> None:
    folds = [fold_of(f"user-{index}") for index in range(5000)]
    assert fold_of("user-0") == folds[0]
    np.testing.assert_allclose(np.bincount(folds) / len(folds), [1 / FOLDS] * FOLDS, atol=0.02)


def test_a_case_is_in_its_user_s_fold() -> None:
    cases = cases_of(
        [user(name, [(CUT, 0, 0), (CUT + 1, 1, 0)]) for name in ("a", "b", "c", "d", "e")]
    )
    folds = case_folds(cases)
    assert folds.tolist() == [fold_of(case.user.user_id) for case in cases]
    assert len(set(folds.tolist())) > 1
