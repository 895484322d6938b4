"""``adprior build``: make a Triton model repository from a checkpoint or a bundle."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adprior_build.onnx_graph.write_model import DEFAULT_PRECISION
from adprior_build.provenance import describe_command
from adprior_build.repository.bundle_builder import fill_from_bundle, fill_from_checkpoint
from adprior_build.repository.language_model import ENGINE_PRECISIONS
from adprior_build.repository.repository_builder import fill_repository
from adprior_build.tensorrt_llm import options
from adprior_build.tensorrt_llm.deployment import Deployment
from adprior_build.torch_model.products import add_products, products_in_words
from adprior_runtime.bundle import HEAD_FILE, MANIFEST, REPOSITORY_MARKER, Bundle, Manifest
from adprior_runtime.contract import EXACT_TARGETS, MAX_TOP_K, Target
from adprior_runtime.engines.registry import ENGINES, ONNX, SINGLE_PRECISION
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.files.atomic import replace_directory, scratch_directory
from adprior_runtime.repository.checker import check_repository, refuse_findings
from adprior_runtime.repository.checks.coherence import check_coherence
from adprior_runtime.repository.tuning import load_tuning
from adprior_runtime.search.settings import SearchMode
from adprior_runtime.terminal.options import positive_integer
from adprior_runtime.text.json_text import to_json

_SETTINGS = (
    "forecast_k",
    "max_top_k",
    "search_mode",
    "beam_width",
    "token_budget",
    "candidate_token_budget",
)
_DEFAULT = Manifest(bundle_id="")
_DEFAULT_DEVICE = Target.CPU.value

EXAMPLE = """examples:
  adprior build --checkpoint CKPT --head head.onnx --save-bundle BUNDLE --output REPO
  adprior build --bundle BUNDLE --output REPO
  adprior build --bundle BUNDLE --tuning tuning.toml --output REPO   (for one machine)
  adprior build --bundle BUNDLE --catalogue new.csv --output REPO   (seconds, no torch)
  adprior build --checkpoint CKPT --engine torch --precision bf16 --output REPO
  adprior build --checkpoint CKPT --engine torch --precision bf16 --products bf16-parts \\
    --device cuda --output REPO   (on the GPU that serves)
  adprior build --checkpoint CKPT --engine tensorrt-llm --deployment deploy/l4.toml --output REPO
  adprior build --check REPO   (prints one line for each fault; exit code 2 if there is one)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--checkpoint",
        type=Path,
        help="build from a checkpoint or an adapter of `adprior train`",
    )
    source.add_argument("--bundle", type=Path, help="build from the bundle of an earlier build")
    source.add_argument(
        "--check", type=Path, metavar="REPO", help="check this model repository, and build nothing"
    )
    for flag, text in (
        ("output", "model repository to write"),
        ("save-bundle", "directory to keep the bundle in as well"),
        ("catalogue", "CSV or Parquet file of advertisers (default: those of the source)"),
        (
            "interests",
            "CSV or Parquet file of interests to forecast as well; the prompt template needs an "
            "interest_tail (default: those of the source, if any)",
        ),
        (
            "head",
            "prior head of `adprior fit-head` (default: the bundle's head; without one, logits "
            "stay unchanged)",
        ),
    ):
        parser.add_argument(f"--{flag}", type=Path, help=text)
    parser.add_argument(
        "--engine",
        choices=[*ENGINES],
        help="engine that runs the language model: onnx and torch search exactly, torch also on "
        "GPUs (it needs adprior[torch]); tensorrt-llm is compiled for one type of GPU "
        f"(default: the bundle's; with --checkpoint {ONNX.name})",
    )
    _add_search(parser)
    parser.add_argument(
        "--precision",
        choices=list(dict.fromkeys(each for names in ENGINE_PRECISIONS.values() for each in names)),
        default=DEFAULT_PRECISION,
        help="how the model's matrices are stored, with --checkpoint: fp32; int8 in a quarter of "
        "the file (onnx); bf16 in half of it (torch) (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        choices=[target.value for target in EXACT_TARGETS],
        default=_DEFAULT_DEVICE,
        help="with --checkpoint and --engine torch: where the engine is compared with the "
        "checkpoint; its rounding there decides what is certified, and products in parts are "
        "served on a GPU only if they were compared there (default: %(default)s)",
    )
    parser.add_argument(
        "--tuning",
        type=Path,
        metavar="FILE",
        help="TOML file with instances, threads and batching for serving on this kind of machine "
        "with the exact search, written by `adprior bench server --sweep` (default: built-in "
        "values)",
    )
    add_products(parser)
    _add_records(parser)
    _add_check(parser)
    options.add_arguments(parser)


def _add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--search-mode",
        choices=[*SearchMode],
        help="beam: fixed work; exact: continue until the top k are proved or the token budget is "
        f"spent (default: the bundle's, else {_DEFAULT.search_mode})",
    )
    for name, text in (
        ("forecast_k", "advertisers in a forecast, unless the request asks for another number"),
        ("max_top_k", f"largest number of advertisers in a forecast, up to {MAX_TOP_K}"),
        ("beam_width", "prefixes that the search expands in each round"),
        ("token_budget", "tokens after which an exact search starts no further round"),
        ("candidate_token_budget", "most tokens for scoring the candidates of a request"),
    ):
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=positive_integer,
            metavar="N",
            help=f"{text} (default: the bundle's, else {getattr(_DEFAULT, name)})",
        )


def _add_records(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--origin", help="origin of the training data, for the manifest")
    parser.add_argument(
        "--record-command",
        action="append",
        metavar="LINE",
        help="an earlier command to record in the manifest; may be repeated",
    )


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="with --check: print the findings as JSON"
    )
    parser.add_argument(
        "--allow-missing-engine",
        action="store_true",
        help="with --check: accept a repository whose TensorRT-LLM engine is not built yet",
    )


def run(args: argparse.Namespace) -> int:
    """Build or check a repository; return the exit code."""
    if args.check is not None:
        _refuse_options_of_a_build(args)
        return _check(args)
    if args.json or args.allow_missing_engine:
        raise InvalidInputError("--json and --allow-missing-engine go with --check")
    start = time.monotonic()
    _check_paths(args)
    deployment = options.check_options(args)
    tuning = (
        None
        if args.tuning is None
        else {target: load_tuning(args.tuning, target) for target in EXACT_TARGETS}
    )
    with (
        replace_directory(args.output, marker=REPOSITORY_MARKER) as output,
        _bundle_place(args) as place,
    ):
        _fill_bundle(place, args, deployment)
        bundle = Bundle.open(place)
        check_coherence(bundle)
        fill_repository(output, bundle, tuning)
        options.add_engine(output, bundle, args, deployment)
        findings = check_repository(output, allow_missing_engine=args.dry_run, is_being_built=True)
        refuse_findings(args.output, findings)
        is_fitted = _has_fitted_head(bundle)
    if not is_fitted:
        note = "no fitted head yet (--head): every adjustment of a ranking is 0"
        print(f"adprior build: {note}", file=sys.stderr)
    print(
        f"adprior build: {args.output} · bundle {bundle.manifest.bundle_id} · "
        f"{time.monotonic() - start:.1f} s"
    )
    return 0


def _check_paths(args: argparse.Namespace) -> None:
    if args.output is None:
        raise InvalidInputError("--output is required: the model repository to write")
    if args.save_bundle is not None:
        kept, output = args.save_bundle.absolute(), args.output.absolute()
        if kept == output or kept in output.parents or output in kept.parents:
            raise InvalidInputError("--save-bundle and --output must not contain each other")
    for name in ("checkpoint", "bundle", "catalogue", "interests", "head"):
        path = getattr(args, name)
        if path is not None and not path.exists():
            raise InvalidInputError(f"--{name} {path}: no such file or directory")


def _check(args: argparse.Namespace) -> int:
    """Print the findings about a repository; return the exit code: 2 if there are any, else 0."""
    findings = check_repository(args.check, allow_missing_engine=args.allow_missing_engine)
    if args.json:
        listed = [
            {"file": each.file, "found": each.found, "expected": each.expected} for each in findings
        ]
        print(to_json({"repository": str(args.check), "findings": listed}, indent=2))
    else:
        for finding in findings:
            print(finding.line)
        if not findings:
            print(f"adprior build: {args.check} · nothing found wrong")
    return 2 if findings else 0


def _has_fitted_head(bundle: Bundle) -> bool:
    from adprior_runtime.head.head import PriorHead  # noqa: PLC0415  onnxruntime

    return PriorHead(bundle.path(HEAD_FILE)).is_fitted


def _refuse_options_of_a_build(args: argparse.Namespace) -> None:
    """Refuse options that a check would ignore."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for name, default in vars(parser.parse_args(["--check", "."])).items():
        if name not in {"check", "json", "allow_missing_engine"} and getattr(args, name) != default:
            raise InvalidInputError(f"--{name.replace('_', '-')} does not go with --check")


@contextmanager
def _bundle_place(args: argparse.Namespace) -> Iterator[Path]:
    """Yield the directory to make the bundle in: one that is kept, or a scratch directory."""
    if args.save_bundle is not None:
        with replace_directory(args.save_bundle, marker=MANIFEST) as place:
            yield place
        return
    with scratch_directory(args.output) as place:
        yield place


def _fill_bundle(place: Path, args: argparse.Namespace, deployment: Deployment | None) -> None:
    settings: dict[str, Any] = {
        name: value for name in (*_SETTINGS, "origin") if (value := getattr(args, name)) is not None
    }
    settings |= options.manifest_settings(args, deployment)
    unrecorded = {"record_command", "origin", "tuning", *options.UNRECORDED}
    settings["commands"] = (
        *(args.record_command or ()),
        describe_command("build", args, leave_out=unrecorded),
    )
    if args.bundle is not None:
        for name, default in (
            ("precision", DEFAULT_PRECISION),
            ("products", SINGLE_PRECISION),
            ("device", _DEFAULT_DEVICE),
        ):
            if getattr(args, name) != default:
                raise InvalidInputError(f"--{name} goes with --checkpoint: a bundle has its model")
        fill_from_bundle(
            place,
            Bundle.open(args.bundle),
            args.catalogue,
            args.head,
            interests_path=args.interests,
            **settings,
        )
        return
    parity = fill_from_checkpoint(
        place,
        args.checkpoint,
        args.catalogue,
        args.head,
        precision=args.precision,
        device=args.device,
        interests_path=args.interests,
        products=args.products,
        **settings,
    )
    if parity is not None:
        print(f"adprior build: {parity.in_words(args.precision)}")
    if line := products_in_words(args.products, args.device):
        print(f"adprior build: {line}")
