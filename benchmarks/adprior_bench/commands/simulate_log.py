"""``adprior bench simulate-log``: make a simulated ranking log, for data without impressions.

Each request is a day of a validation user after the training cut, from whom neither the model nor
the base ranker has learnt. `adprior_bench.quality.ranking.impressions` draws its candidates, and
LightGBM, fitted on the training users' days after the cut, stands in for the base ranker. Its
logits are recalibrated on the log, as a production ranker is on its own impressions: a head that is
fitted on them gains nothing by recalibration. Each request is written twice, because the head meets
both kinds of forecast. The column ``forecast`` is ``live`` with the exact score of each candidate,
or ``stored`` with the scores of a stored forecast, which has only bounds for other candidates. Say
"simulated" wherever a figure comes from such a log.

With ``--ranking-log``, nothing is simulated: requests, candidates and labels are logged ones of
validation users (`adprior_bench.quality.ranking.request_log`), with the bundle's forecasts.
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
    keep_results,
    key_of,
    partial_directory,
)
from adprior_bench.data.log_origin import LogOrigin, require_training_log
from adprior_bench.data.progress import say
from adprior_bench.options import add_training_log, add_work
from adprior_bench.quality.model_forecasts import forecast_identity
from adprior_bench.quality.ranking.base_ranker import RankedRows, rank_rows
from adprior_bench.quality.ranking.impressions import CANDIDATES, SEED
from adprior_bench.quality.ranking.ranking_task import logged_task
from adprior_bench.quality.ranking.request_log import read_request_log
from adprior_bench.quality.study import Splits, Study
from adprior_build.catalogue.catalogue_file import read_catalogue
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
_KINDS: Final = ("live", "stored")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_training_log(parser, required=True)
    parser.add_argument(
        "--ranking-log",
        type=Path,
        metavar="FILE",
        help="take the requests of this log, as `adprior bench quality` does; simulate none",
    )
    parser.add_argument(
        "--requests",
        "--max-cases",
        type=positive_integer,
        metavar="N",
        help="limit of requests, drawn at random; the same seed draws the same ones (all)",
    )
    parser.add_argument(
        "--candidates",
        type=positive_integer,
        default=CANDIDATES,
        metavar="N",
        help=f"candidates in each request ({CANDIDATES})",
    )
    parser.add_argument(
        "--seed", type=whole_number, default=SEED, metavar="N", help=f"seed of all draws ({SEED})"
    )
    add_work(parser)
    parser.add_argument("--output", type=Path, required=True, help="log to write (Parquet)")


def run(args: argparse.Namespace) -> int:
    """Write the log; return the exit code."""
    forecaster = Forecaster(args.bundle)
    study, origin = _read(args, forecaster)
    ranked = _ranked(args, forecaster, study)
    logits = _recalibrated(ranked)
    requests = _draw_requests(ranked, args.requests, args.seed)
    identity = forecast_identity(forecaster.bundle.manifest.bundle_id, threads=0)
    work = partial_directory(args.work, args.output)
    with keep_results(work, identity, command=_COMMAND) as kept:
        parts = [
            _request(forecaster, study, ranked, logits, case, rows, kept)
            for case, rows in track(requests, unit="request", desc=_COMMAND)
        ]
        # Stored beside the columns of the file.
        simulated = args.ranking_log is None
        about = {"simulated": simulated, "requests": len(requests), **origin.to_json()}
        table = pa.concat_tables(parts).replace_schema_metadata({ORIGIN_KEY: to_json(about)})
        with replace_file(args.output) as fresh:
            pa.parquet.write_table(table, fresh)
    kind = "simulated" if simulated else "logged"
    print(f"{_COMMAND}: {len(parts)} requests in {args.output} ({kind})")
    return 0


def _ranked(args: argparse.Namespace, forecaster: Forecaster, study: Study) -> RankedRows:
    """Return the validation users' requests with a base ranker's logits."""
    if args.ranking_log is not None:
        log = read_request_log(args.ranking_log, study, forecaster.renderer.name_ids)
        say(_COMMAND, *(f"{args.ranking_log}: {sentence}" for sentence in log.sentences()))
        ranked, place = logged_task(study, log).fitted, args.ranking_log
    else:
        _, (ranked,) = rank_rows(
            study, [study.validation], seed=args.seed, candidates=args.candidates
        )
        place = args.events
    if len(ranked.impressions.rows) == 0:
        raise InvalidInputError(
            f"{place}: no validation user has a request with an advertiser of the catalogue on or "
            f"after {study.splits.cut}"
        )
    return ranked


def _read(args: argparse.Namespace, forecaster: Forecaster) -> tuple[Study, LogOrigin]:
    """Read the log, and print its summary."""
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
    sentences = [study.log.sentence()]
    if args.ranking_log is None:
        users = len({case.user.user_id for case in study.validation})
        drawn = f"requests are {len(study.validation):,} days of {users:,} validation users"
        sentences.append(f"{drawn} from {study.splits.cut} on")
    say(_COMMAND, *sentences, *origin.sentences(len(study.learnt)))
    return study, origin


def _recalibrated(ranked: RankedRows) -> npt.NDArray[np.float64]:
    labels = ranked.impressions.labels
    if len(np.unique(labels)) < 2:
        return ranked.logits
    slope, shift = fit_recalibration(ranked.logits, labels)
    return slope * ranked.logits + shift


def _draw_requests(ranked: RankedRows, limit: int | None, seed: int) -> list[tuple[int, slice]]:
    """Return the case and the rows of each chosen request."""
    requests = list(ranked.impressions.requests())
    if limit is None:
        return requests
    order = np.random.default_rng(seed).permutation(len(requests))[:limit]
    return [requests[place] for place in np.sort(order)]


def _request(
    forecaster: Forecaster,
    study: Study,
    ranked: RankedRows,
    logits: npt.NDArray[np.float64],
    case: int,
    rows: slice,
    kept: KeptResults,
) -> pa.Table:
    """Return one request's rows twice: with a live and with a stored forecast."""
    ids = forecaster.advertisers.ids[ranked.impressions.rows[rows]]
    found = _forecast(forecaster, study.context(ranked.cases[case]), ids, kept)

    def repeated(value: Any) -> list[Any]:
        return [value] * len(ids)

    shared = {
        "request": repeated(case),
        "advertiser_id": ids,
        "base_logit": logits[rows].astype(np.float32),
        "label": ranked.impressions.labels[rows].astype(np.int64),
        "forecast_advertiser_ids": repeated(found["advertiser_ids"].tolist()),
        "forecast_log_probs": repeated(found["log_probs"].tolist()),
        "missing_mass": repeated(found["missing_mass"].item()),
        "exact": repeated(found["exact"].item()),
        "bundle_id": repeated(forecaster.bundle.manifest.bundle_id),
    }
    tables = []
    for kind in _KINDS:
        statuses = [CandidateStatus(each).name.lower() for each in found[f"{kind}_statuses"]]
        own = {"log_prob": found[f"{kind}_log_probs"], "status": statuses}
        tables.append(pa.table({**shared, "forecast": repeated(kind), **own}))
    return pa.concat_tables(tables)


def _forecast(
    forecaster: Forecaster,
    context: UserContext,
    candidate_ids: npt.NDArray[np.int64],
    kept: KeptResults,
) -> Arrays:
    """Return the forecast and both kinds of priors, kept by prompt and candidates."""
    prompt = np.asarray(forecaster.prompt_ids(context), dtype=np.int64)
    key = key_of("live and stored", prompt.tobytes(), candidate_ids.tobytes())
    if (found := kept.get(key)) is not None:
        return found
    forecast, live = forecaster.rank(context, candidate_ids)
    priors = {"live": live, "stored": forecaster.look_up(forecast, candidate_ids)}
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
