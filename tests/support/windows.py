"""Training windows, made by hand."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from adprior_build.training.windows import INTEREST, NEW, SEEN, Window


def make_window(
    token_ids: Sequence[int],
    targets: Sequence[int],
    new: Collection[int] = (),
    *,
    end: int = -1,
    interest: Collection[int] = (),
) -> Window:
    """Return a window.

    Args:
        token_ids: Its tokens.
        targets: Positions of the target tokens.
        new: Those of them that belong to new names.
        end: The terminator; without it, each target is a name.
        interest: Those of the targets that belong to an interest.
    """
    ends = [place for place in targets if end < 0 or token_ids[place] == end]
    kinds = [INTEREST if at in interest else NEW if at in new else SEEN for at in targets]
    return Window(
        token_ids=np.array(token_ids, dtype=np.int32),
        targets=np.array(targets, dtype=np.int32),
        kinds=np.array(kinds, dtype=np.int8),
        names=sum(place not in interest for place in ends),
        new_names=sum(place in new for place in ends),
        interests=sum(place in interest for place in ends),
    )
