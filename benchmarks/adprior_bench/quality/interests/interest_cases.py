"""Cases and training users of a study with interests in the place of advertisers.

So the metrics, cohorts and baselines of advertisers measure interests as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from adprior_bench.quality.baselines.base import Training
from adprior_bench.quality.histories import EncodedCase, EncodedUser, day_of, encode_users
from adprior_bench.quality.study import Study
from adprior_build.catalogue.catalogue_file import Catalogue
from adprior_build.data.event_log import UserHistory
from adprior_runtime.prompt.template import in_words


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InterestCases:
    """A study's test cases whose day has an interest of the catalogue.

    Attributes:
        places: int64 [cases], their places in ``study.test``.
        cases: These cases; their targets, and the users' rows, are rows of the interests.
        training: The training users with rows of the interests.
    """

    places: npt.NDArray[np.int64]
    cases: Sequence[EncodedCase]
    training: Training

    @classmethod
    def of(
        cls, study: Study, interests: Catalogue, name_ids: Callable[[str], Sequence[int]]
    ) -> InterestCases:
        """Collect the cases.

        Args:
            study: The users.
            interests: The catalogue of interests.
            name_ids: Tokenises a name.
        """

        def encode(users: Sequence[UserHistory]) -> list[EncodedUser]:
            return encode_users([*map(_with_interests, users)], interests, (), name_ids)

        names = {case.user.user_id for case in study.test}
        users = {
            user.user_id: user for user in encode([study.histories[name] for name in sorted(names)])
        }
        found = [_interests_of(case, users[case.user.user_id]) for case in study.test]
        return cls(
            places=np.flatnonzero([len(case.targets) > 0 for case in found]),
            cases=[case for case in found if len(case.targets)],
            training=Training(
                users=encode(study.learnt),
                cut=day_of(study.splits.cut),
                advertisers=len(interests.ids),
                categories=0,
            ),
        )


def _with_interests(user: UserHistory) -> UserHistory:
    """Return a user whose events have their category, in words, as their advertiser."""
    return replace(
        user,
        events=tuple(
            replace(event, advertiser=in_words(event.category) if event.category else None)
            for event in user.events
        ),
    )


def _interests_of(case: EncodedCase, user: EncodedUser) -> EncodedCase:
    """Return a case with the day's interests as targets; other categories are no targets."""
    end = int(np.searchsorted(user.days, case.day + 1))
    rows = np.unique(user.rows[case.stop : end])
    return replace(case, user=user, targets=rows[rows >= 0], missed_repeated=0, missed_new=0)
