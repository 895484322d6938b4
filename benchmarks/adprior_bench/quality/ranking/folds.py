"""Folds by user, for cross-validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.histories import EncodedCase

FOLDS = 5


def fold_of(user_id: str) -> int:
    """Return a user's fold, by a hash of the id."""
    digest = hashlib.blake2b(f"folds\0{user_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % FOLDS


def case_folds(cases: Sequence[EncodedCase]) -> npt.NDArray[np.int64]:
    """Return the fold of each case's user: int64 [cases]."""
    return np.array([fold_of(case.user.user_id) for case in cases], dtype=np.int64)
