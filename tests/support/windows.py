"""Training windows, made by hand."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from adprior_build.training.windows import Window


def make_window(
    token_ids: Sequence[int], targets: Sequence[int], new: Collection[int] = (), *, end: int = -1
) -> Window:
    """Return a window.

    Args:
        token_ids: Its tokens.
        targets: Positions of the target tokens.
        new: Those of them that belong to new names.
        end: The terminator; without it, each target is a name.
    """
    ends = [place for place in targets if end < 0 or token_ids[place] == end]
    return Window(
        token_ids=np.array(token_ids, dtype=np.int32),
        targets=np.array(targets, dtype=np.int32),
        is_new=np.array([place in new for place in targets], dtype=np.bool_),
        names=len(ends),
        new_names=sum(place in new for place in ends),
    )
