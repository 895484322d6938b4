"""``adprior bench quality``: recall on users and days the model never saw, beside baselines."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from adprior_bench.cases import Case, day_cases, recorded_split
from adprior_bench.quality.logged_ranking import measure_log, ranking_table
from adprior_build.catalogue import read_catalogue
from adprior_build.event_log import ColumnMap, name_advertisers, read_users
from adprior_build.options import positive_integer
from adprior_runtime.bundle import CATALOGUE_FILE
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.forecaster import Forecaster

__all__ = ["EXAMPLE", "HELP", "add_arguments", "run"]

HELP = "recall on unseen users and days, beside popularity and own-history frequency"
EXAMPLE = """examples:
  adprior bench quality --bundle demo/bundle --events events.parquet \\
    --profiles profiles.parquet --columns demo/columns.toml
  adprior bench quality --logs rankings.parquet"""

_RESAMPLES = 2000
Ranker = Callable[[Case], list[str]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--bundle", type=Path, help="the bundle to evaluate")
    parser.add_argument("--events", type=Path, help="event log it was trained on")
    parser.add_argument("--profiles", type=Path, help="user profiles")
    parser.add_argument("--columns", type=Path, help="column map (TOML)")
    parser.add_argument(
        "--logs",
        type=Path,
        help="instead: the clients' ranking log, labels joined; base and adjusted logits compared",
    )
    parser.add_argument(
        "-k", type=positive_integer, default=10, metavar="N", help="advertisers counted (10)"
    )
    parser.add_argument(
        "--limit", type=positive_integer, metavar="N", help="evaluate this many cases only"
    )
    parser.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    """Print recall@k of the model and of the baselines, or compare a log's logits."""
    if args.logs is not None:
        found = measure_log(args.logs)
        print(json.dumps(found, indent=2) if args.json else ranking_table(found))
        return 0
    for option in ("bundle", "events", "columns"):
        if getattr(args, option) is None:
            raise InvalidInputError(f"--{option} is missing (or give --logs)")
    forecaster = Forecaster(args.bundle)
    split, cut = recorded_split(forecaster.bundle.manifest.training)
    advertisers = forecaster.advertisers
    catalogue = read_catalogue(forecaster.bundle.path(CATALOGUE_FILE))
    names = catalogue.names
    users = read_users(args.events, args.profiles, ColumnMap.load(args.columns))
    users = name_advertisers(users, catalogue.ids, names)
    tested = [user for user in users if split.is_test_user(user.user_id)]
    cases = list(day_cases(tested, cut, catalogue))[: args.limit]
    if not cases:
        raise InvalidInputError(f"{args.events}: no test user has an event on or after {cut}")
    popular = [names[row] for row in np.argsort(-advertisers.log_popularity, kind="stable")]
    rankers: dict[str, Ranker] = {
        "llm": lambda case: [
            name.decode("utf-8") for name in forecaster.forecast(case.context, args.k).names
        ],
        "popularity": lambda _: popular,
        "own_history": lambda case: _own_history(case, popular, args.k),
    }
    recalls = _recalls(cases, rankers, args.k)
    report = _report(cases, recalls, set(names), args.k) | {
        "bundle_id": forecaster.bundle.bundle_id
    }
    print(json.dumps(report, indent=2) if args.json else _table(report))
    return 0


def _own_history(case: Case, popular: Sequence[str], k: int) -> list[str]:
    """Most frequent advertisers of the user first, ties to the latest, then the popular ones."""
    own = [name for name, _ in Counter(reversed(case.past)).most_common(k)]
    return own + [name for name in popular[: 2 * k] if name not in own]


def _recalls(
    cases: Sequence[Case], rankers: dict[str, Ranker], k: int
) -> dict[str, npt.NDArray[np.float64]]:
    recalls = {name: np.zeros(len(cases)) for name in rankers}
    for index, case in enumerate(tqdm(cases, unit="case", desc="adprior bench quality")):
        for name, ranker in rankers.items():
            hits = len(set(ranker(case)[:k]).intersection(case.advertisers))
            recalls[name][index] = hits / len(case.advertisers)
    return recalls


def _report(
    cases: Sequence[Case], recalls: dict[str, npt.NDArray[np.float64]], known: set[str], k: int
) -> dict[str, Any]:
    users = sorted({case.user_id for case in cases})
    position = {user: index for index, user in enumerate(users)}
    owner = np.array([position[case.user_id] for case in cases])
    weights = _resampled_weights(owner, len(users))
    rows = [
        {
            "ranker": name,
            "recall": float(values.mean()),
            "interval": _interval(values, weights),
            "llm_minus_this": float((recalls["llm"] - values).mean()),
            "llm_minus_this_interval": _interval(recalls["llm"] - values, weights),
        }
        for name, values in recalls.items()
    ]
    targets = [name for case in cases for name in case.advertisers]
    return {
        "k": k,
        "cases": len(cases),
        "users": len(users),
        "targets": len(targets),
        "targets_in_catalogue": sum(name in known for name in targets) / len(targets),
        "rows": rows,
    }


def _resampled_weights(owner: npt.NDArray[np.int64], users: int) -> npt.NDArray[np.float64]:
    """How often each case counts in each bootstrap sample of users: [resamples, cases]."""
    random = np.random.default_rng(0)
    counts = random.multinomial(users, np.full(users, 1 / users), size=_RESAMPLES)
    return counts[:, owner].astype(np.float64)


def _interval(
    values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """The 95 % percentile interval of the mean under a bootstrap over users."""
    means = weights @ values / weights.sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _table(report: dict[str, Any]) -> str:
    k = report["k"]
    lines = [
        f"bundle {report['bundle_id']}: {report['cases']} cases (user, day) of "
        f"{report['users']} users never trained on, all after the training cut",
        f"{report['targets']} advertisers acted on, {report['targets_in_catalogue']:.1%} of them "
        "in the catalogue (the others count as missed)",
        "",
        f"{'ranker':<12} {'recall@' + str(k):>10}  {'95 % interval':<18} {'llm minus this':>14}  "
        "95 % interval, paired over users",
    ]
    for row in report["rows"]:
        low, high = row["interval"]
        line = f"{row['ranker']:<12} {row['recall']:>10.2%}  {low:7.2%} to {high:6.2%}"
        if row["ranker"] != "llm":
            low, high = row["llm_minus_this_interval"]
            line += f"  {row['llm_minus_this']:>+14.2%}  {low:+.2%} to {high:+.2%}"
        lines.append(line)
    return "\n".join(lines)
