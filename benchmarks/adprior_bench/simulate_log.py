"""``adprior bench simulate-log``: a simulated ranking log, for data sets without impressions.

Each request is a day of a training user after the training cut: the model saw the user but not the
day. Its candidates are the day's advertisers (label 1) and others drawn by popularity (label 0).
The base ranker is simulated too: a logistic model of popularity and the user's own history, fitted
on the same requests. Say "simulated" wherever a figure comes from such a log.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet
from tqdm import tqdm

from adprior_bench.cases import Case, day_cases, recorded_split
from adprior_build.atomic import replace_file
from adprior_build.catalogue import Catalogue, read_catalogue
from adprior_build.event_log import ColumnMap, name_advertisers, read_users
from adprior_build.fit_head import fit_logistic
from adprior_build.options import positive_integer, whole_number
from adprior_runtime.bundle import CATALOGUE_FILE
from adprior_runtime.catalogue import Advertisers
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.forecaster import Forecaster

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "write a simulated ranking log that `adprior fit-head` reads"
EXAMPLE = """example:
  adprior bench simulate-log --bundle BUNDLE --events events.parquet \\
    --columns columns.toml --output log.parquet"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle that forecasts")
    parser.add_argument("--events", type=Path, required=True, help="event log it was trained on")
    parser.add_argument("--profiles", type=Path, help="user profiles")
    parser.add_argument("--columns", type=Path, required=True, help="column map (TOML)")
    for option, default, told in (
        ("--requests", 1500, "requests to simulate"),
        ("--candidates", 50, "candidates in each"),
    ):
        parser.add_argument(
            option,
            type=positive_integer,
            default=default,
            metavar="N",
            help=f"{told} ({default})",
        )
    parser.add_argument(
        "--seed", type=whole_number, default=0, metavar="N", help="of all draws (0)"
    )
    parser.add_argument("--output", type=Path, required=True, help="log to write (Parquet)")


def run(args: argparse.Namespace) -> int:
    """Write the log; return the exit code."""
    forecaster = Forecaster(args.bundle)
    advertisers = forecaster.advertisers
    random = np.random.default_rng(args.seed)
    catalogue = read_catalogue(forecaster.bundle.path(CATALOGUE_FILE))
    names = catalogue.names
    rows_by_name = {name: row for row, name in enumerate(names)}
    cases = _training_users_later_days(args, forecaster, catalogue)
    chosen = random.permutation(len(cases))[: args.requests]
    columns: dict[str, list[Any]] = {}
    features = []
    for request, index in enumerate(tqdm(chosen, unit="request", desc="adprior simulate-log")):
        case = cases[index]
        rows, labels = _candidates(case, rows_by_name, advertisers, args.candidates, random)
        forecast = forecaster.forecast(case.context)
        features.append(_base_features(case, rows, names, advertisers))
        _append(columns, request=[request] * len(rows), label=labels.tolist())
        _append(columns, advertiser_id=advertisers.ids[rows].tolist())
        _append(columns, forecast_advertiser_ids=[forecast.advertiser_ids.tolist()] * len(rows))
        _append(columns, forecast_log_probs=[forecast.log_probs.tolist()] * len(rows))
        _append(columns, missing_mass=[forecast.missing_mass] * len(rows))
        _append(columns, exact=[forecast.exact] * len(rows))
        _append(columns, bundle_id=[forecaster.bundle.bundle_id] * len(rows))
    logits = _base_logits(np.concatenate(features), np.array(columns["label"]))
    columns["base_logit"] = logits.tolist()
    with replace_file(args.output) as fresh:
        pa.parquet.write_table(pa.table(columns), fresh)
    print(f"adprior simulate-log: {len(chosen)} requests in {args.output} (simulated)")
    return 0


def _training_users_later_days(
    args: argparse.Namespace, forecaster: Forecaster, catalogue: Catalogue
) -> list[Case]:
    split, cut = recorded_split(forecaster.bundle.manifest.training)
    users = read_users(args.events, args.profiles, ColumnMap.load(args.columns))
    users = name_advertisers(users, catalogue.ids, catalogue.names)
    users = replace(split, cut=None).training_part(users)
    known = set(catalogue.names)
    days = day_cases(users, cut, catalogue)
    cases = [case for case in days if known.intersection(case.advertisers)]
    if not cases:
        raise InvalidInputError(f"{args.events}: no training user has an event on or after {cut}")
    return cases


def _candidates(
    case: Case,
    rows_by_name: dict[str, int],
    advertisers: Advertisers,
    count: int,
    random: np.random.Generator,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    positives = [rows_by_name[name] for name in case.advertisers if name in rows_by_name]
    share = np.exp(advertisers.log_popularity.astype(np.float64))
    count = min(count, len(share))
    drawn = random.choice(len(share), size=count, replace=False, p=share / share.sum())
    negatives = [row for row in drawn if row not in positives][: max(0, count - len(positives))]
    rows = np.array([*positives, *negatives], dtype=np.int64)
    return rows, (np.arange(len(rows)) < len(positives)).astype(np.int64)


def _base_features(
    case: Case, rows: npt.NDArray[np.int64], names: Sequence[str], advertisers: Advertisers
) -> npt.NDArray[np.float64]:
    own = Counter(case.past)
    counts = np.log1p([own[names[row]] for row in rows])
    return np.column_stack([advertisers.log_popularity[rows], counts])


def _base_logits(
    features: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    features = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-6)
    offsets = np.zeros(len(labels))
    weights, bias = fit_logistic(features, offsets, labels.astype(np.float64), l2=1.0)
    logits: npt.NDArray[np.float32] = (features @ weights + bias).astype(np.float32)
    return logits


def _append(columns: dict[str, list[Any]], **values: list[Any]) -> None:
    for name, items in values.items():
        columns.setdefault(name, []).extend(items)
