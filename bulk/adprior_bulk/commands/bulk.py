"""``adprior bulk``: forecast for every active user, on Ray."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Final

from adprior_build.data.column_map import ColumnMap
from adprior_bulk.inputs.pieces import Inputs
from adprior_bulk.run.due_users import Rules
from adprior_bulk.run.job import Job
from adprior_bulk.run.shard_plan import choose_shards
from adprior_bulk.run.user_forecaster import ForecasterSettings
from adprior_client import ClientConfig
from adprior_client.stored.forecast_time import is_from_future
from adprior_runtime.bundle import CATALOGUE_FILE, Bundle
from adprior_runtime.contract import EXACT_TARGETS, Target
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.options import moment, positive_integer, positive_number
from adprior_runtime.text.json_text import to_json

EXAMPLE: Final = """examples:
  adprior bulk --users users.parquet --bundle demo/bundle --output forecasts
  adprior bulk --events events/ --profiles profiles.parquet --columns demo/columns.toml \\
    --as-of 2024-06-01 --url gpu-1:8001 --url gpu-2:8001 --output forecasts --dry-run

--users is Parquet with the columns user_id and context (the user context's JSON). With --events and
--profiles, contexts are made from the events before --as-of. After a kill, run the same command
again: it continues."""

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_PRIORITY: Final = "bulk"
"""Servers put these calls behind rankings and live forecasts."""
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


_INPUT_HELP: Final = {
    "--users": "users with their contexts (Parquet)",
    "--events": "instead of --users: event log (Parquet); times without a zone are UTC",
    "--profiles": "with --events: user profiles (Parquet)",
    "--columns": "with --events: column map (TOML)",
    "--catalogue": "with --events that hold advertiser ids: their names (default: the bundle's)",
    "--bundle": "bundle to forecast with, loaded by each worker",
    "--client": "with --url: client settings such as TLS, token, metadata (TOML)",
}
_NUMBER_HELP: Final = {
    "-k": "advertisers per forecast (default: the bundle's)",
    "--interests": "interests per forecast, if the bundle has them (default: none)",
    "--workers": "workers, each with one core, and with one GPU if they use GPUs (default: all)",
    "--shards": "files of the table (default: one per thousand users, at least 16)",
    "--keep": "versions to keep (default: 2)",
    "--concurrency": "with --url: calls in flight per worker (default: 4)",
}
_SECONDS_HELP: Final = {
    "--timeout": "with --url: deadline of a call, seconds (default: 30)",
    "--patience": "with --url: seconds without an answer after which the run stops (default: 300)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    _add_path_arguments(parser)
    parser.add_argument(
        "--as-of",
        type=moment,
        metavar="TIME",
        help="time of the run, UTC (default: start of today)",
    )
    parser.add_argument(
        "--max-age",
        type=_duration,
        metavar="AGE",
        help="age at which a forecast expires and is made again (default: 7d)",
    )
    parser.add_argument(
        "--lateness",
        type=_duration,
        metavar="AGE",
        help="how far before a forecast to look for late events (default: 30d)",
    )
    parser.add_argument("--all", action="store_true", help="forecast every user, changed or not")
    parser.add_argument("--dry-run", action="store_true", help="only count the users to forecast")
    for name, text in _NUMBER_HELP.items():
        parser.add_argument(name, type=positive_integer, metavar="N", help=text)
    for name, text in _SECONDS_HELP.items():
        parser.add_argument(name, type=positive_number, metavar="S", help=text)
    parser.add_argument(
        "--device",
        choices=[target.value for target in EXACT_TARGETS],
        help="with --bundle: device of the language model; cuda gives each worker a GPU of Ray's, "
        "and needs what `adprior serve --device cuda` needs (default: cpu)",
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="Ray cluster to join (default: start Ray on this machine)",
    )
    parser.add_argument(
        "--price-per-hour",
        type=positive_number,
        metavar="PRICE",
        help="price of all machines together, for the cost in the summary",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.set_defaults(
        max_age=timedelta(days=7),
        lateness=timedelta(days=30),
        keep=2,
        concurrency=4,
        timeout=30.0,
        patience=300.0,
    )


def _add_path_arguments(parser: argparse.ArgumentParser) -> None:
    for name, text in _INPUT_HELP.items():
        parser.add_argument(name, type=Path, metavar="PATH", help=text)
    parser.add_argument(
        "--url",
        action="append",
        metavar="HOST:PORT",
        help="instead of --bundle: server to ask; repeat it for several, or give dns:///NAME:PORT "
        "or file:///PATH, which the run follows",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="output directory of the table"
    )


def run(args: argparse.Namespace) -> int:
    """Do the run, print its summary, return the exit code.

    Raises:
        AdpriorError: Options or inputs are wrong, or the run failed.
    """
    _check(args)
    forecaster, bundle_id = _forecaster_settings(args)
    inputs = _inputs(args)
    rules = Rules(
        as_of=args.as_of or datetime.combine(datetime.now(UTC).date(), time(), tzinfo=UTC),
        max_age=args.max_age,
        lateness=args.lateness,
        bundle_id=bundle_id,
        top_k=args.k,
        interest_k=args.interests,
        everyone=args.all,
        shards=choose_shards(args.output, inputs, args.shards),
    )
    job = Job(
        output=args.output,
        inputs=inputs,
        rules=rules,
        forecaster=forecaster,
        workers=args.workers,
        ray_address=args.ray_address,
        keep=args.keep,
        price_per_hour=args.price_per_hour,
    )
    summary = job.run(dry_run=args.dry_run)
    for note in summary.notes():
        print(f"adprior bulk: {note}", file=sys.stderr)
    print(to_json(summary.to_json(), indent=2) if args.json else summary.to_text())
    return 0


def _check(args: argparse.Namespace) -> None:
    if (args.users is None) == (args.events is None):
        raise InvalidInputError("give either --users or --events")
    if args.events is not None and args.columns is None:
        raise InvalidInputError("--events needs --columns: a column map, such as demo/columns.toml")
    if args.users is not None and args.profiles is not None:
        raise InvalidInputError("--profiles goes with --events: contexts hold their profile")
    served = args.url is not None or args.client is not None
    if served == (args.bundle is not None):
        raise InvalidInputError("give either --bundle or --url")
    if served and args.device is not None:
        raise InvalidInputError(f"--device {args.device} goes with --bundle: servers have theirs")
    if args.as_of is not None and is_from_future(args.as_of):
        raise InvalidInputError(
            f"--as-of: {args.as_of.isoformat()} lies in the future by the clock of this machine; "
            "its forecasts could not be used"
        )


def _forecaster_settings(args: argparse.Namespace) -> tuple[ForecasterSettings, str]:
    """Return the forecaster's settings, and the id of its bundle."""
    if args.bundle is not None:
        from adprior_bulk.run.bundle_forecaster import (  # noqa: PLC0415  needs onnxruntime
            BundleSettings,
        )

        bundle = Bundle.open(args.bundle)
        if args.interests is not None and not bundle.has_interests:
            raise InvalidInputError(f"--interests: {args.bundle} is a bundle without interests")
        settings = BundleSettings(
            bundle=args.bundle.resolve(),
            top_k=args.k,
            interest_k=args.interests,
            device=args.device or Target.CPU.value,
        )
        return settings, bundle.manifest.bundle_id
    from adprior_bulk.run.fleet_forecaster import (  # noqa: PLC0415  needs tritonclient
        FleetSettings,
        ask_bundle_id,
    )

    client = _client_config(args)
    bundle_id = ask_bundle_id(client, args.k, args.interests)
    fleet = FleetSettings(
        client=client,
        top_k=args.k,
        bundle_id=bundle_id,
        concurrency=args.concurrency,
        patience_s=args.patience,
        interest_k=args.interests,
    )
    return fleet, bundle_id


def _client_config(args: argparse.Namespace) -> ClientConfig:
    if args.client is None:
        return ClientConfig(urls=tuple(args.url), deadline_s=args.timeout, priority=_PRIORITY)
    config = ClientConfig.from_toml(args.client)
    return replace(
        config,
        urls=config.urls if args.url is None else tuple(args.url),
        deadline_s=args.timeout,
        priority=config.priority or _PRIORITY,
    )


def _inputs(args: argparse.Namespace) -> Inputs:
    if args.users is not None:
        return Inputs(users=args.users)
    columns = ColumnMap.load(args.columns)
    catalogue = args.catalogue
    if catalogue is None and args.bundle is not None:
        catalogue = Bundle.open(args.bundle, [CATALOGUE_FILE]).path(CATALOGUE_FILE)
    return Inputs(
        events=args.events,
        profiles=args.profiles,
        columns=columns,
        names=None if catalogue is None else _names(catalogue),
    )


def _names(catalogue: Path) -> dict[str, str]:
    from adprior_build.catalogue.catalogue_file import read_catalogue  # noqa: PLC0415

    found = read_catalogue(catalogue)
    return {f"#{key}": name for key, name in zip(found.ids, found.names, strict=True)}


def _duration(text: str) -> timedelta:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a time such as 36h or 7d")
    return timedelta(**{_UNITS[match[2]]: float(match[1])})
