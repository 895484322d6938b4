"""``adprior bench drift``: how far a bundle's drift index moves by chance, and without histories.

The alert on drift compares the advertisers forecast in the last hour with those of the week
(``deploy/prometheus/alerts.yml``; `adprior_runtime.forecast.drift` has the formula). Here
forecasts for days of test users stand for the week, and so many drawn from them at random, with
replacement, for the hour. What chance does is the least that an alert may take for a change; the
rows below have forecasts without a history in them: a broken feed of events looks like that.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adprior_bench.data.cases import read_test_cases
from adprior_bench.data.log_origin import add_other_log, require_training_log
from adprior_runtime.forecast.drift import PopularityBins, stability_index
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.prompt.context import UserContext
from adprior_runtime.terminal.options import positive_integer
from adprior_runtime.terminal.progress import track
from adprior_runtime.terminal.tables import Column, format_table
from adprior_runtime.text.json_text import to_json

EXAMPLE = """example:
  adprior bench drift --bundle BUNDLE --events events.parquet --profiles profiles.parquet \\
    --columns columns.toml"""

SHARES_WITHOUT_HISTORY: Final = (0.0, 0.1, 0.25, 0.5, 1.0)
LEAST_SHARE: Final = 0.001
"""What a smaller share of a tenth counts as, here and in the alert's rule."""

_SEED: Final = 20_220_701
_COLUMNS: Final[list[Column]] = [
    ("without history", "right"),
    ("index, median", "right"),
    ("1st percentile", "right"),
    ("99th percentile", "right"),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle that forecasts")
    parser.add_argument("--events", type=Path, required=True, help="event log it was trained on")
    parser.add_argument("--profiles", type=Path, help="user profiles")
    parser.add_argument("--columns", type=Path, required=True, help="column map (TOML)")
    add_other_log(parser)
    for option, default, told in (
        ("--requests", 300, "days of test users forecast, drawn at random"),
        ("--forecasts", 1000, "forecasts compared with all of them"),
        ("--draws", 1000, "times that so many are drawn"),
    ):
        parser.add_argument(
            option, type=positive_integer, default=default, metavar="N", help=f"{told} ({default})"
        )
    parser.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    """Measure; return the exit code."""
    forecaster = Forecaster(args.bundle)
    files = (args.events, args.profiles, args.columns)
    origin = require_training_log(forecaster.bundle.manifest, *files, other_log=args.other_log)
    cases = read_test_cases(forecaster.bundle, *files)
    random = np.random.default_rng(_SEED)
    chosen = random.permutation(len(cases))[: args.requests]
    contexts = [cases[index] for index in chosen]
    without = [dataclasses.replace(context, history=()) for context in contexts]
    usual = _split(forecaster, contexts, "forecasts, with history")
    bare = _split(forecaster, without, "forecasts, without")
    rows = []
    for share in SHARES_WITHOUT_HISTORY:
        indices = _indices(random, usual, bare, share, args.forecasts, args.draws)
        low, median, high = np.quantile(indices, (0.01, 0.5, 0.99)).tolist()
        rows.append({"share_without_history": share, "median": median, "p1": low, "p99": high})
    about = {
        "bundle_id": forecaster.bundle.bundle_id,
        "requests": len(contexts),
        "forecasts": args.forecasts,
        "draws": args.draws,
        "notes": origin.sentences(),
    }
    print(to_json({**about, "rows": rows}, indent=2) if args.json else _table(about, rows))
    return 0


def _split(
    forecaster: Forecaster, contexts: list[UserContext], told: str
) -> npt.NDArray[np.float64]:
    """Return each forecast's split over the bins of popularity, [contexts, bins]."""
    bins = PopularityBins(forecaster.advertisers.log_popularity)
    splits = []
    for context in track(contexts, desc=told, unit="forecast"):
        forecast = forecaster.forecast(context)
        rows = forecaster.advertisers.rows_of(forecast.advertiser_ids)
        splits.append(bins.split(rows, forecast.log_probs))
    return np.stack(splits)


def _indices(
    random: np.random.Generator,
    usual: npt.NDArray[np.float64],
    bare: npt.NDArray[np.float64],
    share: float,
    forecasts: int,
    draws: int,
) -> npt.NDArray[np.float64]:
    """Return the index of each draw against the mean of ``usual``, [draws]."""
    reference = np.maximum(usual.mean(axis=0), LEAST_SHARE)
    indices = np.empty(draws)
    for draw in range(draws):
        drawn = random.integers(len(usual), size=forecasts)
        is_bare = random.random(forecasts) < share
        shown = np.where(is_bare[:, None], bare[drawn], usual[drawn]).mean(axis=0)
        indices[draw] = stability_index(np.maximum(shown, LEAST_SHARE), reference)
    return indices


def _table(about: dict[str, Any], rows: list[dict[str, float]]) -> str:
    cells = [
        [f"{row['share_without_history']:.0%}"]
        + [f"{row[name]:.4f}" for name in ("median", "p1", "p99")]
        for row in rows
    ]
    told = (
        "bundle {bundle_id}: {forecasts:,} forecasts against those of {requests:,} days of test "
        "users, drawn {draws:,} times"
    )
    lines = [told.format(**about), *about["notes"], "", format_table(_COLUMNS, cells)]
    return "\n".join(lines)
