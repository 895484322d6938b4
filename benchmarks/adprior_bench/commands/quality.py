"""``adprior bench quality``: evaluate forecasts on users and days that the model never saw."""

from __future__ import annotations

import argparse
from pathlib import Path

from adprior_bench.data.kept_results import partial_directory
from adprior_bench.options import add_training_log, add_work
from adprior_bench.quality.evaluation_settings import SECTIONS, Settings
from adprior_bench.quality.ranking.logged_ranking import measure_log, ranking_table
from adprior_runtime.cpu_count import threads_of_each
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.options import positive_integer, whole_number
from adprior_runtime.text.json_text import to_json

EXAMPLE = """examples:
  adprior bench quality --bundle demo/bundle --events events.parquet \\
    --profiles profiles.parquet --columns demo/columns.toml --output report
  adprior bench quality --logs rankings.parquet"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_training_log(parser)
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="directory for the report: HTML, Markdown, PNG"
    )
    parser.add_argument(
        "--logs",
        type=Path,
        help="compare base and adjusted logits on the clients' ranking log with labels, instead of "
        "evaluating a bundle",
    )
    parser.add_argument(
        "--ranking-log",
        type=Path,
        metavar="FILE",
        help="logged requests with their candidates and labels, for the ranking section "
        "(simulated requests)",
    )
    parser.add_argument(
        "--validation-only",
        action="store_true",
        help="for development: evaluate on half of the validation users and do not use test users",
    )
    parser.add_argument(
        "--sections",
        nargs="+",
        choices=SECTIONS,
        default=SECTIONS,
        help="measure only these, and recall (all; interests if the bundle has any). With "
        "--validation-only, recall, stacking and interests without the others are measured on all "
        "validation users",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one setting of each baseline, 100 resamples"
    )
    parser.add_argument(
        "--max-cases",
        type=positive_integer,
        metavar="N",
        help="limit of test days, and of validation days that choose settings; always the same "
        "sample (all)",
    )
    add_work(parser)
    parser.add_argument(
        "--baselines",
        type=Path,
        metavar="DIR",
        help="directory for the baselines' results, which later runs on the same data use again, "
        "for other bundles too (in --work)",
    )
    parser.add_argument(
        "--resamples",
        type=positive_integer,
        default=1000,
        metavar="N",
        help="bootstrap resamples (1000)",
    )
    parser.add_argument(
        "--threads", type=whole_number, default=0, metavar="N", help="CPU threads, 0 for all (0)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the report and write it, or compare a log's logits; return the exit code."""
    if args.logs is not None:
        found = measure_log(args.logs)
        print(to_json(found, indent=2) if args.json else ranking_table(found))
        return 0
    for option in ("bundle", "events", "columns"):
        if getattr(args, option) is None:
            raise InvalidInputError(f"--{option} is missing (or give --logs)")
    from adprior_bench.quality.evaluation import evaluate  # noqa: PLC0415  torch, LightGBM
    from adprior_bench.report.plain import plain  # noqa: PLC0415  heavy: plots
    from adprior_bench.report.terminal import report_text  # noqa: PLC0415
    from adprior_bench.report.write import write_report  # noqa: PLC0415

    settings = Settings(
        quick=args.quick,
        resamples=100 if args.quick else args.resamples,
        threads=threads_of_each(1, args.threads),
        validation_only=args.validation_only,
        sections=args.sections,
        max_cases=args.max_cases,
        ranking_log=args.ranking_log,
        other_log=args.other_log,
        work=partial_directory(args.work, args.output),
        baselines=args.baselines,
    )
    with evaluate(args.bundle, args.events, args.profiles, args.columns, settings) as report:
        shown = plain(report)
        text = to_json(shown, indent=2) if args.json else report_text(shown, args.output)
        if args.output is not None:
            write_report(report, args.output)
    print(text)
    return 0
