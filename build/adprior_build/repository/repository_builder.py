"""The model repository: committed configs and shims, with a bundle's artefacts beside them."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

from adprior_build.repository.server_tuning import Tuning
from adprior_runtime.bundle import MANIFEST, MODEL_FILES, Bundle
from adprior_runtime.contract import (
    CPU_CONFIG_NAME,
    LLM_ENGINE,
    MODEL_NAMES,
    TOKENIZER,
    Target,
)
from adprior_runtime.errors import ArtefactError
from adprior_runtime.files.hard_links import link_or_copy
from adprior_runtime.repository.model_configs import render, set_parameters

REPOSITORY_MARKER = f"{TOKENIZER}/1/bundle/{MANIFEST}"
"""The file that tells a repository of ours."""


def fill_repository(directory: Path, bundle: Bundle, tuning: Tuning | None = None) -> None:
    """Write a complete model repository into an empty directory.

    Every version directory is self-contained: the shim, and in ``bundle/`` the manifest and the
    files that the model needs, hard-linked to the bundle's where the file system can.

    Args:
        directory: Where to.
        bundle: The artefacts.
        tuning: Of the embedded server, in place of the committed configurations.
    """
    template = _template_tree()
    for name in MODEL_NAMES:
        shutil.copytree(
            template / name, directory / name, ignore=shutil.ignore_patterns("__pycache__")
        )
        if name == LLM_ENGINE:
            _set_beam_width(directory / name / "config.pbtxt", bundle.manifest.beam_width)
        if tuning is not None:
            _tune(directory / name, tuning)
        version = directory / name / "1"
        version.mkdir(exist_ok=True)
        if name not in MODEL_FILES:
            continue
        wanted = [
            file
            for file in bundle.manifest.files
            if any(file == item or file.startswith(f"{item}/") for item in MODEL_FILES[name])
        ]
        for file in [MANIFEST, *wanted]:
            target = version / "bundle" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(bundle.directory / file, target)


def _set_beam_width(config: Path, width: int) -> None:
    """Let the production engine take beams of the width that every request will ask for."""
    text = set_parameters(config.read_text(encoding="utf-8"), {"max_beam_width": str(width)})
    config.write_text(text, encoding="utf-8")


def _tune(directory: Path, tuning: Tuning) -> None:
    """Give a model its tuned configuration for the embedded server; production keeps its own."""
    text = render(directory.name, Target.CPU, tuning)
    if text != render(directory.name, Target.GPU):
        embedded = directory / "configs" / f"{CPU_CONFIG_NAME}.pbtxt"
        embedded.parent.mkdir(exist_ok=True)
        embedded.write_text(text, encoding="utf-8")


def _template_tree() -> Path:
    """Find the committed tree: in the installed package, or beside it in a checkout."""
    package = Path(str(files("adprior_build")))
    for place in (package / "model_repository", package.parents[1] / "model_repository"):
        if (place / TOKENIZER / "config.pbtxt").is_file():
            return place
    raise ArtefactError("the installed adprior lacks its model_repository; install it again")
