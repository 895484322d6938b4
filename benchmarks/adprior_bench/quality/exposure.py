"""Who is shown: how much of the catalogue, and how evenly."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from adprior_bench.quality.intervals import Draws, UserBootstrap

SHOWN: Final = 10
"""How many advertisers of each list count as shown, and how many of all are the most shown."""


def measure_exposure(
    lists: npt.NDArray[np.int64],
    advertisers: int,
    bootstrap: UserBootstrap,
    chosen: npt.NDArray[np.bool_] | None = None,
) -> dict[str, Draws]:
    """Return draws of what lists do to advertisers; take their intervals `centred`.

    * ``coverage``: the share of the catalogue that is in any list;
    * ``hhi``: the Herfindahl-Hirschman index, the sum of squared shares of all places in lists: one
      advertiser alone has 1, n alike have 1/n;
    * ``top_share``: the share of places that the `SHOWN` most shown advertisers take.

    Args:
        lists: int64 [cases, n], rows of the catalogue, best first; the first `SHOWN` count. A
            negative one is an empty place.
        advertisers: How many the catalogue has.
        bootstrap: Over the cases' users.
        chosen: bool [cases], those that count; None: all.
    """
    shown = lists[:, :SHOWN]
    counted = shown >= 0
    if chosen is not None:
        counted &= chosen[:, np.newaxis]
    owner = np.broadcast_to(bootstrap.places[:, np.newaxis], shown.shape)[counted]
    by_user = sparse.csr_matrix(
        (np.ones(len(owner)), (shown[counted], owner)), shape=(advertisers, bootstrap.users)
    )
    most = min(SHOWN, advertisers)
    found = []
    for counts in bootstrap.blocks(3 * advertisers):
        places = by_user @ counts.T  # [advertisers, draws]
        with np.errstate(invalid="ignore"):  # no chosen case was drawn: NaN
            shares = places / places.sum(axis=0)
        leading = np.partition(shares, advertisers - most, axis=0)[advertisers - most :]
        found.append([(places > 0).mean(axis=0), (shares**2).sum(axis=0), leading.sum(axis=0)])
    coverage, hhi, top_share = np.concatenate(found, axis=1)
    return {"coverage": coverage, "hhi": hhi, "top_share": top_share}
