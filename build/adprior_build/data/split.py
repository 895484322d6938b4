"""The split of a log: which users, and which of their events, a model is trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Final

from adprior_build.data.event_log import UserHistory

VALIDATION_SALT: Final = "validation"
"""The salt that separates the users who choose the epoch from the other training users."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Separates training from test.

    Attributes:
        cut: Training sees events strictly before this day; test cases lie on it or after.
        test_share: Share of users that training never sees, chosen by a hash of their id.
        salt: Part of that hash: splits with different salts are independent.
    """

    cut: date | None = None
    test_share: float = 0.0
    salt: str = "adprior"

    def is_test_user(self, user_id: str) -> bool:
        """Tell whether a user is held out from training; the same on every machine."""
        digest = hashlib.blake2b(f"{self.salt}\0{user_id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.test_share * 2**64

    def training_part(self, users: Sequence[UserHistory]) -> list[UserHistory]:
        """Return the training users with their events before the cut."""
        kept = [user for user in users if not self.is_test_user(user.user_id)]
        if self.cut is None:
            return kept
        end = datetime.combine(self.cut, time(), tzinfo=UTC)
        return [user.before(end) for user in kept]
