"""``adprior bench simulate-log``: a simulated ranking log, for data sets without impressions.

Each request is a day of a validation user after the training cut: neither the model nor the base
ranker has learnt from the user. `adprior_bench.quality.ranking.impressions` draws candidates, and
LightGBM, fitted on the training users' days after the cut, stands for the base ranker; its logits
are recalibrated on the log, as a ranker in production is on its own impressions, so that a head
fitted on them is the one that `adprior bench quality` measures and gains nothing by mere
recalibration. A request is written twice, ``forecast`` = ``live`` with every candidate's own score
and ``at_hand`` with what a stored forecast says by itself, bounds for all that it does not show:
the head will meet both. Say "simulated" wherever a figure comes from such a log.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from adprior_bench.data.kept_results import (
    Arrays,
    KeptResults,
    add_work,
    keep_results,
    key_of,
    partial_directory,
)
from adprior_bench.data.log_origin import LogOrigin, add_other_log, require_training_log
from adprior_bench.data.progress import say
from adprior_bench.quality.model_forecasts import forecast_identity
from adprior_bench.quality.ranking.experiment import rank_rows
from adprior_bench.quality.ranking.head_choice import RankedRows
from adprior_bench.quality.ranking.impressions import CANDIDATES, SEED, Impressions
from adprior_bench.quality.study import Splits, Study
from adprior_build.catalogue.catalogue import read_catalogue
from adprior_build.data.column_map import ColumnMap
from adprior_build.head.logistic_fit import fit_recalibration
from adprior_build.head.ranking_log import ORIGIN_KEY
from adprior_runtime.bundle import CATALOGUE_FILE
from adprior_runtime.contract import CandidateStatus
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.atomic import replace_file
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.prompt.context import UserContext
from adprior_runtime.terminal.options import positive_integer, whole_number
from adprior_runtime.terminal.progress import track
from adprior_runtime.text.json_text import to_json

EXAMPLE = """example:
  adprior bench simulate-log --bundle BUNDLE --events events.parquet \\
    --profiles profiles.parquet --columns columns.toml --output log.parquet"""

_COMMAND: Final = "adprior bench simulate-log"
_KINDS: Final = ("live", "at_hand")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle that forecasts")
    parser.add_argument("--events", type=Path, required=True, help="event log it was trained on")
    parser.add_argument("--profiles", type=Path, help="user profiles")
    parser.add_argument("--columns", type=Path, required=True, help="column map (TOML)")
    parser.add_argument(
        "--requests",
        "--max-cases",
        type=positive_integer,
        metavar="N",
        help="so many of them at most, drawn; the same seed draws the same (all)",
    )
    parser.add_argument(
        "--candidates",
        type=positive_integer,
        default=CANDIDATES,
        metavar="N",
        help=f"candidates in each ({CANDIDATES})",
    )
    parser.add_argument(
        "--seed", type=whole_number, default=SEED, metavar="N", help=f"of all draws ({SEED})"
    )
    add_other_log(parser)
    add_work(parser)
    parser.add_argument("--output", type=Path, required=True, help="log to write (Parquet)")


def run(args: argparse.Namespace) -> int:
    """Write the log; return the exit code."""
    forecaster = Forecaster(args.bundle)
    manifest = forecaster.bundle.manifest
    origin = require_training_log(
        manifest, args.events, args.profiles, args.columns, other_log=args.other_log
    )
    say(_COMMAND, f"reading {args.events}")
    study = Study.read(
        Splits.recorded(manifest.training),
        read_catalogue(forecaster.bundle.path(CATALOGUE_FILE)),
        args.events,
        args.profiles,
        ColumnMap.load(args.columns),
        forecaster.renderer.name_ids,
    )
    users = len({case.user.user_id for case in study.validation})
    drawn = f"requests are of {len(study.validation):,} days of {users:,} validation users"
    told = (study.log.sentence(), f"{drawn} from {study.splits.cut} on")
    say(_COMMAND, *told, *origin.sentences(len(study.learnt)))
    _, (ranked,) = rank_rows(study, [study.validation], seed=args.seed, candidates=args.candidates)
    if len(ranked.impressions.rows) == 0:
        raise InvalidInputError(
            f"{args.events}: no validation user acts on an advertiser of the catalogue on or "
            f"after {study.splits.cut}"
        )
    logits = _recalibrated(ranked)
    work = partial_directory(args.work, args.output)
    identity = forecast_identity(manifest.bundle_id, threads=0)
    chosen = _chosen(ranked.impressions, args.requests, args.seed)
    with keep_results(work, identity, command=_COMMAND) as kept:
        parts = [
            _request(forecaster, study, ranked.impressions, logits, case, kept)
            for case in track(chosen, unit="request", desc=_COMMAND)
        ]
        table = pa.concat_tables(parts).replace_schema_metadata(_metadata(origin, len(chosen)))
        with replace_file(args.output) as fresh:
            pa.parquet.write_table(table, fresh)
    print(f"adprior simulate-log: {len(parts)} requests in {args.output} (simulated)")
    return 0


def _metadata(origin: LogOrigin, requests: int) -> dict[str, str]:
    """Return what the file says of itself, beside its columns."""
    found = {"simulated": True, "requests": requests, **origin.to_json()}
    return {ORIGIN_KEY: to_json(found)}


def _recalibrated(ranked: RankedRows) -> npt.NDArray[np.float64]:
    labels = ranked.impressions.labels
    if len(np.unique(labels)) < 2:
        return ranked.logits
    slope, shift = fit_recalibration(ranked.logits, labels)
    return slope * ranked.logits + shift


def _chosen(impressions: Impressions, wanted: int | None, seed: int) -> list[int]:
    cases = np.unique(impressions.cases)
    if wanted is not None:
        cases = np.sort(np.random.default_rng(seed).permutation(cases)[:wanted])
    return [int(case) for case in cases]


def _request(
    forecaster: Forecaster,
    study: Study,
    impressions: Impressions,
    logits: npt.NDArray[np.float64],
    case: int,
    kept: KeptResults,
) -> pa.Table:
    """Return one request's rows twice: ranked live, and ranked with the forecast at hand."""
    here = impressions.cases == case
    ids = forecaster.advertisers.ids[impressions.rows[here]]
    found = _ask(forecaster, study.context(study.validation[case]), ids, kept)
    shared = {
        "request": _all(case, len(ids)),
        "advertiser_id": ids,
        "base_logit": logits[here].astype(np.float32),
        "label": impressions.labels[here].astype(np.int64),
        "forecast_advertiser_ids": _all(found["advertiser_ids"].tolist(), len(ids)),
        "forecast_log_probs": _all(found["log_probs"].tolist(), len(ids)),
        "missing_mass": _all(found["missing_mass"].item(), len(ids)),
        "exact": _all(found["exact"].item(), len(ids)),
        "bundle_id": _all(forecaster.bundle.bundle_id, len(ids)),
    }
    return pa.concat_tables(
        pa.table(
            {
                **shared,
                "forecast": _all(kind, len(ids)),
                "log_prob": found[f"{kind}_log_probs"],
                "status": [
                    CandidateStatus(status).name.lower() for status in found[f"{kind}_statuses"]
                ],
            }
        )
        for kind in _KINDS
    )


def _ask(
    forecaster: Forecaster,
    context: UserContext,
    candidate_ids: npt.NDArray[np.int64],
    kept: KeptResults,
) -> Arrays:
    """Return forecast and priors of one request, as kept for the same prompt and candidates."""
    prompt = np.asarray(forecaster.prompt_ids(context), dtype=np.int64)
    key = key_of("ranked", prompt.tobytes(), candidate_ids.tobytes())
    if (found := kept.get(key)) is not None:
        return found
    forecast, live = forecaster.rank(context, candidate_ids)
    priors = {"live": live, "at_hand": forecaster.look_up(forecast, candidate_ids)}
    found = {
        "advertiser_ids": forecast.advertiser_ids,
        "log_probs": forecast.log_probs,
        "missing_mass": np.asarray(forecast.missing_mass),
        "exact": np.asarray(forecast.exact),
        **{f"{kind}_log_probs": priors[kind].log_probs for kind in _KINDS},
        **{f"{kind}_statuses": priors[kind].statuses for kind in _KINDS},
    }
    kept.put(key, found)
    return found


def _all(value: Any, count: int) -> list[Any]:
    return [value] * count
