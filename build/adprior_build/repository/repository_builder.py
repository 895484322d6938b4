"""Makes a model repository: rendered configurations and shims, with a bundle's artefacts."""

from __future__ import annotations

from pathlib import Path

from adprior_runtime.bundle import MANIFEST, MODEL_FILES, Bundle
from adprior_runtime.contract import LLM_ENGINE, MODEL_NAMES
from adprior_runtime.files.hard_links import link_or_copy
from adprior_runtime.repository import tensorrt_llm_names
from adprior_runtime.repository.model_configs import Tunings, set_parameters, write_tree


def fill_repository(directory: Path, bundle: Bundle, tuning: Tunings | None = None) -> None:
    """Write a complete model repository into an empty directory.

    Every version directory is self-contained. It has the shim, and in ``bundle/`` the manifest and
    the files that the model needs, hard-linked to the bundle's files if the file system can.

    Args:
        directory: The empty directory.
        bundle: The artefacts.
        tuning: The tuning of each configuration, instead of the contract's.
    """
    write_tree(directory, tuning)
    # Every request asks the production engine for beams of this width.
    config = directory / LLM_ENGINE / "config.pbtxt"
    width = {tensorrt_llm_names.MAX_BEAM_WIDTH: str(bundle.manifest.beam_width)}
    config.write_text(set_parameters(config.read_text(encoding="utf-8"), width), encoding="utf-8")
    for name in MODEL_NAMES:
        version = directory / name / "1"
        version.mkdir(exist_ok=True)
        needed = MODEL_FILES.get(name, ())
        files = [
            file
            for file in bundle.manifest.files
            if any(file == item or file.startswith(f"{item}/") for item in needed)
        ]
        for file in [MANIFEST, *files] if needed else []:
            target = version / "bundle" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(bundle.directory / file, target)
