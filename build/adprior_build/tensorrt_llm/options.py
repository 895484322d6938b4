"""The options of ``adprior build --engine tensorrt-llm``, and how they combine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from adprior_build.onnx_graph.write_model import DEFAULT_PRECISION
from adprior_build.repository.language_model import ENGINE_PRECISIONS
from adprior_build.tensorrt_llm.deployment import Deployment
from adprior_build.tensorrt_llm.engine_build import EngineBuild
from adprior_build.tensorrt_llm.engine_files import (
    VERSION_DIRECTORY,
    engine_parameters,
    kept_parameters,
    put_engine,
    set_engine_parameters,
)
from adprior_build.tensorrt_llm.tool_commands import EXAMPLES
from adprior_runtime.bundle import MANIFEST, Bundle, Manifest
from adprior_runtime.contract import Target
from adprior_runtime.engines.registry import ENGINES, ONNX, TENSORRT_LLM, TORCH
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.repository.tensorrt_llm_files import find_engine

UNRECORDED: Final = frozenset({"dry_run", "work", "examples"})
"""Options that do not change the result."""

_ONLY_TENSORRT_LLM: Final = ("deployment", "engine_from", "calibration_users", "work")
_ONLY_EXACT: Final = (
    "tuning",
    "search_mode",
    "beam_width",
    "token_budget",
    "candidate_token_budget",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options, in a group of their own."""
    group = parser.add_argument_group(f"with --engine {TENSORRT_LLM.name} (docs/gpu.md)")
    group.add_argument(
        "--deployment", type=Path, metavar="TOML", help="the GPU and its load; examples in deploy/"
    )
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="print the commands, and write the repository without the engine",
    )
    group.add_argument(
        "--engine-from", type=Path, metavar="DIR", help="use an existing engine instead, if it fits"
    )
    group.add_argument(
        "--calibration-users",
        type=Path,
        metavar="JSONL",
        help="for fp8: user contexts, one per line, to calibrate on",
    )
    group.add_argument(
        "--work", type=Path, metavar="DIR", help="directory of intermediate files (OUTPUT.work)"
    )
    group.add_argument(
        "--examples",
        type=Path,
        default=EXAMPLES,
        metavar="DIR",
        help="TensorRT-LLM's example scripts (%(default)s)",
    )


def check_options(args: argparse.Namespace) -> Deployment | None:
    """Choose the engine, and refuse options that do not combine; return the deployment, if any."""
    args.engine = _chosen_engine(args)
    if args.products not in ENGINES[args.engine].products:
        raise InvalidInputError(
            f"--products {args.products} goes with --checkpoint and --engine {TORCH.name}"
        )
    if args.engine != TENSORRT_LLM.name:
        _refuse(args, (*_ONLY_TENSORRT_LLM, "dry_run"), f"goes with --engine {TENSORRT_LLM.name}")
        if args.precision not in (stored := ENGINE_PRECISIONS[args.engine]):
            raise InvalidInputError(
                f"--precision {args.precision} is not one of --engine {args.engine}: "
                f"{', '.join(stored)}"
            )
        if args.engine != TORCH.name:
            _refuse_device(args)
        return None
    _refuse_device(args)
    _refuse(
        args, _ONLY_EXACT, f"has no effect with --engine {TENSORRT_LLM.name}; see the deployment"
    )
    if args.precision != DEFAULT_PRECISION:
        raise InvalidInputError(
            f"--precision is for --engine {' and '.join(ENGINE_PRECISIONS)}; see the deployment's "
            "dtype"
        )
    if args.engine_from is not None:
        _refuse(args, ("dry_run", "calibration_users"), "does not go with --engine-from")
    elif args.checkpoint is None or args.deployment is None:
        raise InvalidInputError(
            f"--engine {args.engine} needs --checkpoint and --deployment to build an engine, or "
            "--engine-from DIR to use one built before"
        )
    if args.dry_run and find_engine(args.output / VERSION_DIRECTORY) is not None:
        raise InvalidInputError(
            f"{args.output}: holds an engine, which a dry run would remove; choose another --output"
        )
    if args.deployment is None:
        return None
    deployment = Deployment.load(args.deployment)
    if args.engine_from is None:
        _check_calibration(args, deployment)
    return deployment


def manifest_settings(args: argparse.Namespace, deployment: Deployment | None) -> dict[str, Any]:
    """Return the manifest's entries about the engine."""
    settings: dict[str, Any] = {} if args.bundle is not None else {"engine": args.engine}
    if deployment is not None:
        settings["beam_width"] = deployment.beam_width
    return settings


def add_engine(
    repository: Path, bundle: Bundle, args: argparse.Namespace, deployment: Deployment | None
) -> None:
    """Put an engine into a repository that is being written, or print the commands.

    Args:
        repository: The repository, complete but for the engine.
        bundle: Its bundle.
        args: The command's options.
        deployment: The result of `check_options`.
    """
    if args.engine != TENSORRT_LLM.name:
        return
    width = bundle.manifest.beam_width
    if deployment is None:
        parameters = kept_parameters(args.engine_from, width)
    else:
        parameters = engine_parameters(width, deployment.repository_path, deployment.kv_cache_share)
    set_engine_parameters(repository, parameters)
    if deployment is None or args.engine_from is not None:
        put_engine(repository, args.engine_from)
        return
    work = args.work or args.output.with_name(f"{args.output.name}.work")
    planned = EngineBuild(
        deployment=deployment,
        bundle=bundle,
        checkpoint=args.checkpoint,
        work=work.absolute(),
        examples=args.examples,
        calibration_users=args.calibration_users,
    )
    planned.check()
    if args.dry_run:
        planned.print_commands(args.output)
        return
    planned.run(repository)


def _check_calibration(args: argparse.Namespace, deployment: Deployment) -> None:
    """Refuse fp8 without users to calibrate on, and such users without fp8."""
    users, quantisation = args.calibration_users, deployment.quantisation
    if quantisation == "fp8" and users is None:
        raise InvalidInputError(
            "fp8 needs --calibration-users: user contexts, one JSON document per line, whose "
            "prompts calibrate its scales"
        )
    if quantisation != "fp8" and users is not None:
        raise InvalidInputError(
            f"--calibration-users goes with quantisation fp8, {args.deployment} says {quantisation}"
        )


def _chosen_engine(args: argparse.Namespace) -> str:
    """Return the engine that was asked for, or else the bundle's, or else ONNX Runtime."""
    asked: str | None = args.engine
    if args.bundle is None or not (args.bundle / MANIFEST).is_file():
        return asked or ONNX.name
    kind = Manifest.load(args.bundle / MANIFEST).engine
    if asked not in {None, kind}:
        raise InvalidInputError(
            f"--bundle {args.bundle} is for --engine {kind}; another engine needs --checkpoint"
        )
    return kind


def _refuse(args: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if getattr(args, name) not in {None, False}:
            raise InvalidInputError(f"--{name.replace('_', '-')} {why}")


def _refuse_device(args: argparse.Namespace) -> None:
    """Refuse a device that the engine is not compared on."""
    if args.device != Target.CPU.value:
        raise InvalidInputError(f"--device {args.device} goes with --engine {TORCH.name}")
