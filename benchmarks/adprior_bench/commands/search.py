"""``adprior bench search``: compare the search with the prefill and with other systems."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adprior_bench.options import add_counts, add_training_log
from adprior_bench.report.terminal import figures_table
from adprior_bench.search.host_work import measure_host_work
from adprior_bench.search.on_bundle import measure_bundle
from adprior_bench.search.on_synthetic import measure_synthetic
from adprior_bench.search.peers.measure import add_peer_options, measure_peers
from adprior_bench.search.peers.table import comparison_text
from adprior_bench.search.rows import CLOCKS
from adprior_bench.search.synthetic import LLAMA, MODELS
from adprior_build.onnx_graph.write_model import PRECISIONS
from adprior_runtime.engines.registry import SINGLE_PRECISION, TORCH
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.options import positive_integer
from adprior_runtime.text.json_text import to_json

EXAMPLE = """example:
  adprior bench search --sizes 10000 100000 1000000 --threads 2
  adprior bench search --model gemma3-270m --sizes 10000 --peer-rounds 0 --clock processor
  adprior bench search --sizes --bundle demo/bundle --rounds 300 --events events.parquet \\
    --profiles profiles.parquet --columns demo/columns.toml
  adprior bench search --host-work 32 --sizes 10000 1000000
  adprior bench search --together 8 32 --model gemma3-270m --sizes 10000 \\
    --products fp32 bf16-parts --device cuda
  adprior bench search --peers --peer-python vllm=vllm-venv/bin/python --rounds 8 \\
    --bundle demo/bundle --checkpoint demo/adapter --users demo/users/*.json"""

_COLUMNS = (
    "model", "precision", "mode", "catalogue_size", "prompt_tokens", "prefill_ms", "search_ms",
    "search_over_prefill", "extended_tokens", "work_ratio", "peer", "peer_over_search",
    "select_ms_per_step", "root_select_ms", "exact_fraction",
    "peak_over_weights_and_cache",
)  # fmt: skip

_HOST_COLUMNS = (
    "catalogue_size", "mode", "users", "host_us", "search_us", "packing_us", "prefill_us",
    "passes_per_user", "extended_tokens", "exact_fraction", "sent_bytes",
    "returned_bytes", "asked_waits", "waits", "asked_user_host_us", "user_host_us",
)  # fmt: skip

_TOGETHER_COLUMNS = (
    "model", "device", "products", "catalogue_size", "prompt_tokens", "beam_width", "users",
    "users_per_s", "over_alone", "user_ms", "processor_ms_a_user", "extended_tokens",
    "product_tflops", "floor_users_per_s", "share_of_floor", "device_idle",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_training_log(parser)
    parser.add_argument(
        "--sizes",
        type=positive_integer,
        nargs="*",
        default=[10_000, 100_000, 1_000_000],
        metavar="N",
        help="sizes of the synthetic catalogues (10000 100000 1000000)",
    )
    add_counts(
        parser,
        ("--rounds", 30, "measured searches of each row"),
        ("--width", 32, "beam width, and top k of the synthetic models"),
        ("--top-k", 20, "top k of the bundle"),
        ("--candidates", 500, "random candidates to score"),
        ("--threads", 2, "threads of the engine"),
    )
    parser.add_argument(
        "--host-work",
        type=positive_integer,
        metavar="N",
        help="measure the host's work a user and pass, for N users and a forward pass that costs "
        "nothing",
    )
    parser.add_argument(
        "--together",
        type=positive_integer,
        nargs="+",
        default=[],
        metavar="N",
        help="measure the torch engine with a synthetic model: N users at once, and one",
    )
    parser.add_argument(
        "--model",
        choices=[*MODELS],
        default=LLAMA,
        help=f"the synthetic model, with random weights ({LLAMA})",
    )
    parser.add_argument(
        "--prompt-tokens",
        type=positive_integer,
        metavar="N",
        help="tokens of each prompt (synthetic 256; a bundle's as its template has them)",
    )
    parser.add_argument(
        "--clock",
        choices=[*CLOCKS],
        default="elapsed",
        help="what is measured: elapsed time, or the processor time of all threads (elapsed)",
    )
    parser.add_argument(
        "--precisions",
        choices=[*PRECISIONS],
        nargs="*",
        default=[],
        help="also measure these precisions of the graph (none)",
    )
    parser.add_argument(
        "--peer-rounds",
        type=int,
        default=30,
        metavar="N",
        help="runs of transformers.generate on the smallest catalogue; 0 omits it (30)",
    )
    parser.add_argument(
        "--name-tokens",
        type=positive_integer,
        metavar="N",
        help="with --together: tokens of each name, without the terminator (4 to 6)",
    )
    parser.add_argument(
        "--products",
        choices=TORCH.products,
        nargs="+",
        metavar="FORM",
        help="with --together: how the engine multiplies its matrices, which are stored in "
        f"bfloat16: one or more of {', '.join(TORCH.products)} ({SINGLE_PRECISION})",
    )
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="device of --together and of a --bundle (cpu)",
    )
    add_peer_options(parser)
    parser.add_argument("--json", action="store_true", help="print rows as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure; return the exit code."""
    _check(args)
    if args.peers is not None:
        return _compare(args)
    if args.host_work is not None:
        _print(args, measure_host_work(args), _HOST_COLUMNS)
        return 0
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="adprior-bench-") as directory:
        if args.together:
            from adprior_bench.search.together import measure_together  # noqa: PLC0415  torch

            _print(args, measure_together(args, Path(directory)), _TOGETHER_COLUMNS)
            return 0
        if args.sizes:
            rows += measure_synthetic(args, Path(directory))
    if args.bundle is not None:
        rows += measure_bundle(args)
    _print(args, rows, _COLUMNS)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse options that do not combine, before anything is measured."""
    forms = {
        "--peers": args.peers is not None,
        "--together": bool(args.together),
        "--host-work": args.host_work is not None,
    }
    chosen = [name for name, is_chosen in forms.items() if is_chosen]
    if len(chosen) > 1:
        raise InvalidInputError(f"{' and '.join(chosen)} do not go together")
    form = chosen[0] if chosen else None
    if not args.sizes and (args.bundle is None or form in {"--together", "--host-work"}):
        raise InvalidInputError("nothing to measure: give --sizes or a --bundle")
    if args.bundle is not None and form in {"--together", "--host-work"}:
        raise InvalidInputError(f"{form} measures synthetic catalogues: leave out --bundle")
    if args.events is not None and args.bundle is None:
        raise InvalidInputError("--events needs a --bundle, whose names are searched for its users")
    if args.bundle is not None and form is None and None in {args.events, args.columns}:
        raise InvalidInputError("--bundle needs --events and --columns, for its test users")
    for name, value in (("--name-tokens", args.name_tokens), ("--products", args.products)):
        if value is not None and form != "--together":
            raise InvalidInputError(f"{name} goes with --together")
    on_onnx = form == "--host-work" or (form != "--together" and args.bundle is None)
    if args.device != "cpu" and (on_onnx or (form is None and args.sizes)):
        raise InvalidInputError(
            f"--device {args.device} goes with --together, or with a --bundle and no --sizes: ONNX "
            "Runtime serves on CPUs only"
        )
    given = {"--users": args.users, "--checkpoint": args.checkpoint, "--plot": args.plot}
    given["--peer-python"] = args.peer_python or None
    for name, value in given.items():
        if value is not None and form != "--peers":
            raise InvalidInputError(f"{name} goes with --peers")


def _print(
    args: argparse.Namespace, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]
) -> None:
    print(to_json(rows, indent=2) if args.json else figures_table(rows, columns))


def _compare(args: argparse.Namespace) -> int:
    rows = measure_peers(args)
    if args.plot is not None:
        from adprior_bench.search.peers.plot import write_plot  # noqa: PLC0415  matplotlib is slow

        write_plot(rows, args.plot)
    print(to_json(rows, indent=2) if args.json else comparison_text(rows))
    return 0
