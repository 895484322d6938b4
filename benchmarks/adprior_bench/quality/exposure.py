"""Exposure: how much of the catalogue the lists show, and how evenly."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from adprior_bench.quality.intervals import Draws, UserBootstrap, estimate
from adprior_bench.quality.metrics import Scored
from adprior_bench.report.schema import Table
from adprior_bench.report.tables import decimal, make_table, percent

SHOWN: Final = 10
"""Length of the lists that count as shown, and number of the most shown advertisers."""


def measure_exposure(
    lists: npt.NDArray[np.int64], advertisers: int, bootstrap: UserBootstrap
) -> dict[str, Draws]:
    """Return draws of exposure; their intervals are `centred`.

    * ``coverage``: the share of the catalogue that is in any list;
    * ``hhi``: the Herfindahl-Hirschman index, the sum of squared shares of all slots: 1 for a
      single advertiser, 1 / n for n equal ones;
    * ``top_share``: the share of slots of the `SHOWN` most shown advertisers.

    Args:
        lists: int64 [cases, n], rows of the catalogue, best first; the first `SHOWN` count.
        advertisers: Size of the catalogue.
        bootstrap: Over the cases' users.
    """
    shown = lists[:, :SHOWN]
    owner = np.broadcast_to(bootstrap.places[:, np.newaxis], shown.shape).ravel()
    by_user = sparse.csr_matrix(
        (np.ones(len(owner)), (shown.ravel(), owner)), shape=(advertisers, bootstrap.users)
    )
    most = min(SHOWN, advertisers)
    found = []
    for counts in bootstrap.blocks(3 * advertisers):
        slots = by_user @ counts.T  # [advertisers, draws]
        shares = slots / slots.sum(axis=0)
        leading = np.partition(shares, advertisers - most, axis=0)[advertisers - most :]
        found.append([(slots > 0).mean(axis=0), (shares**2).sum(axis=0), leading.sum(axis=0)])
    coverage, hhi, top_share = np.concatenate(found, axis=1)
    return {"coverage": coverage, "hhi": hhi, "top_share": top_share}


def exposure_table(
    scored: Mapping[str, Scored], bootstrap: UserBootstrap, ours: Collection[str]
) -> Table:
    """Return each ranker's exposure."""
    columns = {
        "coverage": ("catalogue coverage", percent(1)),
        "hhi": ("Herfindahl index", decimal(4)),
        "top_share": (f"share of the {SHOWN} most shown advertisers", percent(1)),
    }
    rows = []
    for ranker, each in scored.items():
        found = measure_exposure(each.top_rows, each.advertisers, bootstrap)
        figures = {
            title: estimate(found[name], centred=True) for name, (title, _) in columns.items()
        }
        rows.append({"ranker": ranker, **figures})
    return make_table(
        f"Exposure in the first {SHOWN} advertisers of each case",
        rows,
        dict(columns.values()),
        highlight=lambda row: row["ranker"] in ours,
        detail=True,
    )
