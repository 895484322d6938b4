"""The shipped model as a bundle and as a model repository, for the demo and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnx

from adprior_build.checkpoints.checkpoint import hash_checkpoint
from adprior_runtime.bundle import (
    CHECKPOINT_SHA256,
    HEAD_FILE,
    MANIFEST,
    ONNX_MODEL_FILE,
    POPULARITY_FILE,
    PROMPT_FILE,
    TOKENIZER_FILE,
    Manifest,
    hash_file,
)
from adprior_runtime.cli import main as adprior
from adprior_runtime.cpu_count import available_processors
from adprior_runtime.engines.onnx_graph import require_contract
from adprior_runtime.errors import AdpriorError

HERE: Final = Path(__file__).resolve().parent
ADAPTER: Final = HERE / "adapter"
BUNDLE: Final = HERE / "bundle"


def build_repository(repository: Path, bundle: Path | None) -> None:
    """Build a bundle's repository, and first ``demo/bundle`` if it is missing or out of date.

    Every engine may use all processors: one person asks, one request at a time.

    Args:
        repository: The directory to make.
        bundle: Another bundle; None for the shipped model.

    Raises:
        AdpriorError: The repository could not be built.
    """
    if bundle is not None or _is_current():
        source = ["--bundle", str(bundle or BUNDLE)]
    else:
        print("Assembling demo/bundle from the base model and demo/adapter: a minute", flush=True)
        source = ["--checkpoint", str(ADAPTER), "--head", str(ADAPTER / HEAD_FILE)]
        source += ["--origin", (HERE / "origin.txt").read_text("utf-8").strip()]
        source += ["--save-bundle", str(BUNDLE)]
    tuning = repository.with_name("tuning.toml")
    tuning.write_text(f"[llm_engine]\nthreads = {available_processors()}\n", encoding="utf-8")
    if adprior(["build", *source, "--tuning", str(tuning), "--output", str(repository)]) != 0:
        raise AdpriorError("the repository could not be built")


def _is_current() -> bool:
    """Whether ``demo/bundle`` was made from what is in ``demo/adapter`` now, with this graph."""
    try:
        manifest = Manifest.load(BUNDLE / MANIFEST)
        graph = onnx.load(str(BUNDLE / ONNX_MODEL_FILE))
        require_contract({item.key: item.value for item in graph.metadata_props})
    except (AdpriorError, OSError):
        return False
    copied = (HEAD_FILE, POPULARITY_FILE, PROMPT_FILE, TOKENIZER_FILE)
    return manifest.training.get(CHECKPOINT_SHA256) == hash_checkpoint(ADAPTER) and all(
        manifest.files.get(name) == hash_file(ADAPTER / name) for name in copied
    )
