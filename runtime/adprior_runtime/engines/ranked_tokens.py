"""The result of reading a prompt: the most probable next tokens, and the sum of the others.

Names begin with thousands of tokens, and a search seldom needs more than a hundred of them. So only
those are copied from a GPU, and only those are in the search's table. The others are read if a
search needs them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

_Float32Array = npt.NDArray[np.float32]
_Int64Array = npt.NDArray[np.int64]

MOST_RANKED: Final = 128
"""At least so many tokens are held: enough for four passes of 32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedTokens:
    """The log-probabilities of the tokens that were asked for.

    No other token is more probable than one that is held. NaN counts as the most probable, so that
    a reader of the held ones finds it.

    Attributes:
        asked: How many tokens were asked for.
        places: int64 [held], rising: where the held ones are among those that were asked for. They
            are all, or `MOST_RANKED` or more.
        log_probs: float32 [held], theirs.
        others_log_mass: Log of the sum of the others' probabilities; -inf if there are no others.
        read_all: Returns the log-probabilities of all, float32 [asked].
        extended: How many of the most probable tokens the engine has extended already. To ask for
            those next, and for what may follow each, costs no pass.
    """

    asked: int
    places: _Int64Array
    log_probs: _Float32Array
    others_log_mass: float
    read_all: Callable[[], _Float32Array]
    extended: int = 0

    @classmethod
    def of(cls, log_probs: _Float32Array) -> Self:
        """Rank log-probabilities that are on the host: float32 [asked].

        The tokens are divided into twice `MOST_RANKED` groups. As many tokens as are wanted reach
        the median of the groups' largest log-probabilities, and usually not half as many more. To
        sort the tokens would take five times as long.
        """
        asked, groups = len(log_probs), 2 * MOST_RANKED
        places, others_log_mass = np.arange(asked), -math.inf
        if asked > 2 * groups:
            dealt = log_probs[: asked // groups * groups].reshape(-1, groups)
            least = np.partition(dealt.max(axis=0), MOST_RANKED)[MOST_RANKED]  # NaN come last
            places = np.flatnonzero(~(log_probs < least))
            others_log_mass = _log_sum_without(log_probs, places)
        return cls(
            asked=asked,
            places=places,
            log_probs=log_probs[places],
            others_log_mass=others_log_mass,
            read_all=lambda: log_probs,
        )


def _log_sum_without(log_probs: _Float32Array, places: _Int64Array) -> float:
    """Return the log of the sum of the probabilities at all other places."""
    others = log_probs.astype(np.float64)
    others[places] = -np.inf
    highest = float(others.max())
    if highest == -math.inf:  # infinity minus infinity is no number
        return highest
    others -= highest
    return highest + math.log(np.exp(others, out=others).sum())
