"""``adprior bench drift``: measure the drift index by chance, and with missing histories.

The drift alert compares the forecast advertisers of the last hour with those of the week
(``deploy/prometheus/alerts.yml``; the formula is in `adprior_runtime.forecast.drift`). Here,
forecasts for days of test users stand in for the week, and random draws of them, with replacement,
for the hour. The variation by chance is the lowest sensible threshold of the alert. The other rows
contain forecasts without history, as after a failure of the event feed.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adprior_bench.data.cases import read_test_cases
from adprior_bench.data.log_origin import require_training_log
from adprior_bench.options import add_counts, add_training_log
from adprior_runtime.forecast.drift import PopularityBins, stability_index
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.prompt.context import UserContext
from adprior_runtime.terminal.progress import track
from adprior_runtime.terminal.tables import Column, format_table
from adprior_runtime.text.json_text import to_json

EXAMPLE = """example:
  adprior bench drift --bundle BUNDLE --events events.parquet --profiles profiles.parquet \\
    --columns columns.toml"""

SHARES_WITHOUT_HISTORY: Final = (0.0, 0.1, 0.25, 0.5, 1.0)
MIN_BIN_SHARE: Final = 0.001
"""Smaller shares of a bin are raised to this, as in the alert's rule."""

_SEED: Final = 20_220_701
_COLUMNS: Final[list[Column]] = [
    ("without history", "right"),
    ("index, median", "right"),
    ("1st percentile", "right"),
    ("99th percentile", "right"),
]
_Shares = npt.NDArray[np.float64]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_training_log(parser, required=True)
    add_counts(
        parser,
        ("--requests", 300, "days of test users to forecast, drawn at random"),
        ("--forecasts", 1000, "forecasts in each draw"),
        ("--draws", 1000, "number of draws"),
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Measure; return the exit code."""
    forecaster = Forecaster(args.bundle)
    files = (args.events, args.profiles, args.columns)
    origin = require_training_log(forecaster.bundle.manifest, *files, other_log=args.other_log)
    cases = read_test_cases(forecaster.bundle, *files)
    random = np.random.default_rng(_SEED)
    contexts = [cases[index] for index in random.permutation(len(cases))[: args.requests]]
    bare = [dataclasses.replace(context, history=()) for context in contexts]
    with_history = _bin_shares(forecaster, contexts, "forecasts with history")
    without = _bin_shares(forecaster, bare, "forecasts without history")
    rows = []
    for share in SHARES_WITHOUT_HISTORY:
        indices = [
            _draw_index(random, with_history, without, share, args.forecasts)
            for _ in range(args.draws)
        ]
        low, median, high = np.quantile(indices, (0.01, 0.5, 0.99)).tolist()
        rows.append({"share_without_history": share, "median": median, "p1": low, "p99": high})
    about = {
        "bundle_id": forecaster.bundle.manifest.bundle_id,
        "requests": len(contexts),
        "forecasts": args.forecasts,
        "draws": args.draws,
        "notes": origin.sentences(),
    }
    print(to_json({**about, "rows": rows}, indent=2) if args.json else _table(about, rows))
    return 0


def _bin_shares(forecaster: Forecaster, contexts: list[UserContext], title: str) -> _Shares:
    """Return each forecast's probability by bin of popularity: [contexts, bins]."""
    bins = PopularityBins(forecaster.advertisers.log_popularity)
    shares = []
    for context in track(contexts, desc=title, unit="forecast"):
        forecast = forecaster.forecast(context)
        rows = forecaster.advertisers.rows_of(forecast.advertiser_ids)
        shares.append(bins.split(rows, forecast.log_probs))
    return np.stack(shares)


def _draw_index(
    random: np.random.Generator,
    with_history: _Shares,
    without: _Shares,
    share: float,
    forecasts: int,
) -> float:
    """Return the index of a draw against the mean of ``with_history``."""
    reference = np.maximum(with_history.mean(axis=0), MIN_BIN_SHARE)
    drawn = random.integers(len(with_history), size=forecasts)
    is_bare = random.random(forecasts) < share
    mean = np.where(is_bare[:, None], without[drawn], with_history[drawn]).mean(axis=0)
    return stability_index(np.maximum(mean, MIN_BIN_SHARE), reference)


def _table(about: dict[str, Any], rows: list[dict[str, float]]) -> str:
    cells = [
        [f"{row['share_without_history']:.0%}"]
        + [f"{row[name]:.4f}" for name in ("median", "p1", "p99")]
        for row in rows
    ]
    title = (
        "bundle {bundle_id}: {draws:,} draws of {forecasts:,} forecasts against those of "
        "{requests:,} days of test users"
    )
    lines = [title.format(**about), *about["notes"], "", format_table(_COLUMNS, cells)]
    return "\n".join(lines)
