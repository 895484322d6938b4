"""The engine of a repository: its directory, and its parameters in ``config.pbtxt``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Final

from adprior_build.tensorrt_llm.deployment import Deployment
from adprior_runtime.contract import LLM_ENGINE
from adprior_runtime.errors import ArtefactError, InvalidInputError
from adprior_runtime.files.hard_links import link_or_copy
from adprior_runtime.repository.tensorrt_llm_files import (
    find_engine,
    is_kv_share,
    read_engine_parameters,
)
from adprior_runtime.repository.tensorrt_llm_names import (
    ENGINE_PATH,
    KV_CACHE_SHARE,
    MAX_BEAM_WIDTH,
)

VERSION_DIRECTORY: Final = f"{LLM_ENGINE}/1"
"""The engine's directory in a repository."""


def engine_parameters(
    beam_width: int, repository_path: str, kv_cache_share: float
) -> dict[str, str]:
    """Return the parameters of ``llm_engine/config.pbtxt`` that depend on the deployment."""
    return {
        ENGINE_PATH: f"{repository_path.rstrip('/')}/{VERSION_DIRECTORY}",
        MAX_BEAM_WIDTH: str(beam_width),
        KV_CACHE_SHARE: f"{kv_cache_share:g}",
    }


def kept_parameters(engine: Path, beam_width: int) -> dict[str, str]:
    """Return these parameters for an existing engine: as its repository has them, else defaults.

    Args:
        engine: The directory of an existing engine; in a repository, ``config.pbtxt`` is above it.
        beam_width: The bundle's.

    Raises:
        ArtefactError: That configuration cannot be read.
    """
    default = {item.name: item.default for item in fields(Deployment)}
    found = engine_parameters(
        beam_width, str(default["repository_path"]), float(str(default["kv_cache_share"]))
    )
    config = engine.absolute().parent / "config.pbtxt"
    if config.is_file():
        kept = read_engine_parameters(config)
        found |= {key: kept[key] for key in (ENGINE_PATH, KV_CACHE_SHARE) if key in kept}
        if not is_kv_share(found[KV_CACHE_SHARE]):
            raise ArtefactError(
                f"{config}: {KV_CACHE_SHARE} is {found[KV_CACHE_SHARE]!r}, expected a share; "
                "give --deployment"
            )
    return found


def set_engine_parameters(repository: Path, parameters: Mapping[str, str]) -> None:
    """Write parameters into ``llm_engine/config.pbtxt``."""
    from adprior_runtime.repository.model_configs import set_parameters  # noqa: PLC0415  protobuf

    path = repository / LLM_ENGINE / "config.pbtxt"
    path.write_text(set_parameters(path.read_text(encoding="utf-8"), parameters), encoding="utf-8")


def put_engine(repository: Path, source: Path) -> None:
    """Link an existing engine into a repository that is being written.

    Args:
        repository: The repository.
        source: A directory with ``config.json`` and ``rank0.engine``.

    Raises:
        InvalidInputError: The directory holds no engine.
    """
    if not source.is_dir() or find_engine(source) is None:
        raise InvalidInputError(f"{source}: no engine in it (no rank0.engine)")
    for name in ("config.json", "rank0.engine"):
        link_or_copy(source / name, repository / VERSION_DIRECTORY / name)
