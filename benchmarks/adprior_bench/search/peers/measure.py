"""``adprior bench search --peers``: its options, and what the systems are given."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models

from adprior_bench.data.log_origin import require_training_log
from adprior_bench.search.on_bundle import read_test_prompts
from adprior_bench.search.peers.comparison import Work, compare
from adprior_bench.search.peers.system import PEERS
from adprior_bench.search.synthetic import (
    MODELS,
    PROMPT_TOKENS,
    VOCABULARY,
    random_catalogue,
    synthetic_model,
    weights_of,
    write_graph,
)
from adprior_build.checkpoints.checkpoint import Checkpoint, hash_checkpoint, open_checkpoint
from adprior_build.checkpoints.tokenizer import load_tokenizer
from adprior_runtime.bundle import (
    CHECKPOINT_SHA256,
    PROMPT_FILE,
    TOKENIZER_FILE,
    TRIE_DIRECTORY,
    Bundle,
)
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.engines.registry import ENGINES
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import parse_context
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.search.settings import SearchSettings


def add_peer_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a comparison with peers."""
    parser.add_argument(
        "--peers",
        choices=[*PEERS],
        nargs="*",
        help="only compare with these systems, all of them if none is named, on the synthetic "
        "model with the smallest size, or on a --bundle",
    )
    parser.add_argument(
        "--peer-python",
        type=_peer_python,
        action="append",
        default=[],
        metavar="PEER=PYTHON",
        help="the Python that has a peer's package (this one)",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="CKPT",
        help="what the bundle was built from, for --peers: a Hugging Face directory or an adapter",
    )
    parser.add_argument(
        "--users",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="user contexts (JSON) for --peers with a --bundle, in place of --events",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="PNG", help="also write the comparison with --peers as a plot"
    )


def measure_peers(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of `compare`.

    Raises:
        InvalidInputError: A file is missing, or the bundle was built from another checkpoint.
    """
    named = dict(args.peer_python)
    pythons = {name: named.get(name, sys.executable) for name in args.peers or PEERS}
    if args.bundle is not None:
        return compare(_bundle_work(args), pythons, args.rounds)
    with tempfile.TemporaryDirectory(prefix="adprior-bench-") as directory:
        return compare(_synthetic_work(args, Path(directory)), pythons, args.rounds)


def _peer_python(text: str) -> tuple[str, str]:
    name, _, python = text.partition("=")
    if name not in PEERS or not python:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected PEER=PYTHON, where PEER is one of {', '.join(PEERS)}"
        )
    return name, python


def _bundle_work(args: argparse.Namespace) -> Work:
    """Return a bundle's model, with the prompts of ``--users`` or of its log's test users."""
    if args.checkpoint is None:
        raise InvalidInputError("--peers needs the --checkpoint that the bundle was built from")
    bundle = Bundle.open(args.bundle)
    expected = bundle.manifest.training.get(CHECKPOINT_SHA256)
    if (found := hash_checkpoint(args.checkpoint)) != expected:
        raise InvalidInputError(
            f"{args.checkpoint}: SHA-256 {found}, expected {expected}, from which bundle "
            f"{bundle.manifest.bundle_id} was built"
        )
    if (loader := ENGINES[bundle.manifest.engine].loader) is None:
        raise InvalidInputError(f"{args.bundle}: its engine does not search in this process")
    if args.users is not None:
        renderer = PromptRenderer.load(bundle.path(PROMPT_FILE), bundle.path(TOKENIZER_FILE))
        contexts = [parse_context(path.read_bytes()) for path in args.users]
        prompts = [renderer.render(context).token_ids for context in contexts]
    elif args.events is not None and args.columns is not None:
        require_training_log(
            bundle.manifest, args.events, args.profiles, args.columns, other_log=args.other_log
        )
        prompts = read_test_prompts(args, bundle, args.rounds)
    else:
        raise InvalidInputError("--peers with a --bundle needs --users, or --events and --columns")
    return Work(
        model=f"bundle {bundle.manifest.bundle_id}",
        checkpoint=open_checkpoint(args.checkpoint),
        tokenizer=load_tokenizer(args.checkpoint),
        engine=loader(bundle, threads=args.threads, device=args.device),
        trie=Trie.load(bundle.path(TRIE_DIRECTORY)),
        prompts=prompts,
        settings=SearchSettings.of(bundle.manifest).for_top_k(args.top_k, args.width),
        top_k=args.top_k,
        threads=args.threads,
    )


def _synthetic_work(args: argparse.Namespace, directory: Path) -> Work:
    """Return the random model, its graph in ``directory``, and random prompts."""
    model = synthetic_model(args.model)
    graph = write_graph(model, directory / "model.onnx", "fp32")
    words = models.WordLevel({f"t{token}": token for token in range(VOCABULARY)})
    random, length = np.random.default_rng(7), args.prompt_tokens or PROMPT_TOKENS
    return Work(
        model=MODELS[args.model],
        checkpoint=Checkpoint(config=model.config.to_dict(), weights=weights_of(model)),
        tokenizer=Tokenizer(words),
        engine=OnnxEngine(graph, threads=args.threads),
        trie=random_catalogue(min(args.sizes)),
        prompts=random.integers(3, VOCABULARY, (args.rounds, length)).tolist(),
        settings=SearchSettings(width=args.width),
        top_k=min(args.top_k, args.width),
        threads=args.threads,
    )
