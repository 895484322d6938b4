"""``adprior build --engine tensorrt-llm``: checks, estimate, engine, repository."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from adprior_build.tensorrt_llm.commands import OFFLINE, Paths, Step, engine_steps
from adprior_build.tensorrt_llm.deployment import Deployment
from adprior_build.tensorrt_llm.memory import check_calibration_fits, describe_fit
from adprior_build.tensorrt_llm.model_shape import ModelShape
from adprior_build.tensorrt_llm.sizes import EngineSizes
from adprior_build.tensorrt_llm.staging import (
    check_calibration,
    stage_calibration,
    stage_checkpoint,
)
from adprior_build.tensorrt_llm.tools import check_container, find_gpu, require_gpu, run_step
from adprior_runtime.bundle import PROMPT_FILE, TRIE_DIRECTORY, Bundle
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.contract import LLM_ENGINE
from adprior_runtime.engines.compiled_tensorrt_llm import (
    KV_SHARE,
    NeededSizes,
    engine_mismatches,
    find_engine,
    is_kv_share,
    read_engine_config,
    read_engine_parameters,
)
from adprior_runtime.errors import ArtefactError, InvalidInputError
from adprior_runtime.files.hard_links import link_or_copy
from adprior_runtime.prompt.template import PromptTemplate

_WORK_MARKER: Final = ".adprior-work"
VERSION_DIRECTORY: Final = f"{LLM_ENGINE}/1"
"""Where a repository has its engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineBuild:
    """One engine to be built for one bundle.

    Attributes:
        deployment: The GPU and what it serves.
        shape: The checkpoint's.
        sizes: The engine's.
        checkpoint: From ``adprior train``.
        work: For what lies between checkpoint and engine; removed when all went well.
        examples: The image's example scripts.
        calibration_users: User contexts, one a line; for fp8, which needs them, and None else.
    """

    deployment: Deployment
    shape: ModelShape
    sizes: EngineSizes
    checkpoint: Path
    work: Path
    examples: Path
    calibration_users: Path | None = None

    @classmethod
    def plan(
        cls,
        deployment: Deployment,
        bundle: Bundle,
        checkpoint: Path,
        work: Path,
        examples: Path,
        calibration_users: Path | None = None,
    ) -> EngineBuild:
        """Derive every size, print the estimate of memory, and refuse what cannot be.

        Raises:
            InvalidInputError: It does not fit the GPU, the model or the bundle.
        """
        shape = ModelShape.read(checkpoint)
        needed = needed_sizes(bundle)
        if deployment.prompt_tokens < needed.prompt_tokens:
            raise InvalidInputError(
                f"deployment: prompt_tokens is {deployment.prompt_tokens}, the checkpoint's "
                f"prompts have up to {needed.prompt_tokens} ({PROMPT_FILE}: max_prompt_tokens)"
            )
        if bundle.forecast_k > deployment.beam_width:
            raise InvalidInputError(
                f"deployment: beam_width is {deployment.beam_width}, a forecast of "
                f"{bundle.forecast_k} advertisers (--forecast-k) needs as many beams"
            )
        sizes = EngineSizes.of(deployment, needed.name_tokens)
        sizes.check_fits_model(shape)
        _check_vocabulary(bundle, shape, checkpoint)
        if calibration_users is not None:
            check_calibration(calibration_users, checkpoint)
        print(describe_fit(deployment, shape, needed.name_tokens))
        check_calibration_fits(deployment, shape)
        return cls(
            deployment=deployment,
            shape=shape,
            sizes=sizes,
            checkpoint=checkpoint,
            work=work.absolute(),
            examples=examples,
            calibration_users=calibration_users,
        )

    def steps(self, engine: Path) -> list[Step]:
        """Return the commands that put the engine into the directory ``engine``."""
        paths = Paths.below(self.work, engine, self.examples)
        return engine_steps(self.deployment, self.shape, self.sizes, paths)

    def describe(self, repository: Path) -> None:
        """Prepare the work directory and print the commands, for a machine with the GPU."""
        self._stage(needs_weights=False)
        steps = self.steps(repository.absolute() / VERSION_DIRECTORY)
        exports = " ".join(f"{key}={value}" for key, value in OFFLINE.items())
        print(f"\n# inside the image, from {self.work}\nexport {exports}")
        for step in steps:
            print(f"\n# {step.name}\n{step.to_shell()}")

    def run(self, repository: Path) -> None:
        """Build the engine into a repository that is being written.

        Raises:
            EnvironmentProblemError: Not the right container, driver or GPU, or a step failed.
            ArtefactError: The tools made an engine of other sizes.
        """
        engine = repository.absolute() / VERSION_DIRECTORY
        steps = self.steps(engine)
        check_container(self.examples, steps)
        require_gpu(self.deployment, find_gpu())
        self._stage(needs_weights=True)
        for number, step in enumerate(steps, start=1):
            print(f"adprior build: {step.name} ({number} of {len(steps)}) ...", flush=True)
            run_step(step, self.work)
        if find_engine(engine) is None:
            raise ArtefactError(f"step {steps[-1].name} ended well, but left no engine in {engine}")
        shutil.rmtree(self.work)

    def parameters(self) -> dict[str, str]:
        """Return what the engine's ``config.pbtxt`` must say of it."""
        return engine_parameters(
            self.deployment.beam_width,
            self.deployment.repository_path,
            self.deployment.kv_cache_share,
        )

    def _stage(self, *, needs_weights: bool) -> None:
        _make_work(self.work)
        paths = Paths.below(self.work, self.work)
        stage_checkpoint(self.checkpoint, paths.checkpoint, needs_weights=needs_weights)
        if self.calibration_users is not None:
            stage_calibration(self.calibration_users, self.checkpoint, paths.calibration)


def engine_parameters(
    beam_width: int, repository_path: str, kv_cache_share: float
) -> dict[str, str]:
    """Return the entries of ``llm_engine/config.pbtxt`` that only a build knows."""
    return {
        "gpt_model_path": f"{repository_path.rstrip('/')}/{VERSION_DIRECTORY}",
        "max_beam_width": str(beam_width),
        KV_SHARE: f"{kv_cache_share:g}",
    }


def kept_parameters(engine: Path, beam_width: int) -> dict[str, str]:
    """Return these entries for want of a deployment: the default's, and those beside an engine.

    Args:
        engine: The directory of an engine that was built before; in a repository of ours,
            ``config.pbtxt`` is beside it.
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
        found |= {key: kept[key] for key in ("gpt_model_path", KV_SHARE) if key in kept}
        if not is_kv_share(found[KV_SHARE]):
            raise ArtefactError(
                f"{config}: {KV_SHARE} is {found[KV_SHARE]!r}, expected a share; say --deployment"
            )
    return found


def needed_sizes(bundle: Bundle) -> NeededSizes:
    """Return what a bundle's requests ask of an engine."""
    template = PromptTemplate.load(bundle.path(PROMPT_FILE))
    return NeededSizes(
        prompt_tokens=template.max_prompt_tokens,
        name_tokens=bundle.manifest.longest_name_tokens,
        beam_width=bundle.manifest.beam_width,
    )


def set_engine_parameters(repository: Path, parameters: Mapping[str, str]) -> None:
    """Write entries of ``llm_engine/config.pbtxt``."""
    from adprior_runtime.repository.model_configs import set_parameters  # noqa: PLC0415  tritonclient

    path = repository / LLM_ENGINE / "config.pbtxt"
    path.write_text(set_parameters(path.read_text(encoding="utf-8"), parameters), encoding="utf-8")


def check_engine(repository: Path, bundle: Bundle) -> None:
    """Refuse an engine in a repository that does not fit its configuration and bundle.

    Raises:
        ArtefactError: One line with every mismatch.
    """
    parameters = read_engine_parameters(repository / LLM_ENGINE / "config.pbtxt")
    engine_config = read_engine_config(repository / VERSION_DIRECTORY)
    if found := engine_mismatches(engine_config, parameters, needed_sizes(bundle)):
        raise ArtefactError(
            f"the engine does not fit: {'; '.join(found)}; build it again for this checkpoint, "
            "catalogue and deployment"
        )


def put_engine(repository: Path, source: Path) -> None:
    """Link an engine that was built before into a repository that is being written.

    Args:
        repository: Where to.
        source: A directory with ``config.json`` and ``rank0.engine``.

    Raises:
        InvalidInputError: It is no such directory.
    """
    if not source.is_dir() or find_engine(source) is None:
        raise InvalidInputError(f"{source}: no engine in it (no rank0.engine)")
    for name in ("config.json", "rank0.engine"):
        link_or_copy(source / name, repository / VERSION_DIRECTORY / name)


def _make_work(work: Path) -> None:
    """Empty a work directory of ours, or make one."""
    if work.exists():
        if not (work / _WORK_MARKER).is_file() and any(work.iterdir()):
            raise InvalidInputError(
                f"{work}: exists and is not an earlier work directory; choose another with --work"
            )
        shutil.rmtree(work)
    work.mkdir(parents=True)
    (work / _WORK_MARKER).touch()


def _check_vocabulary(bundle: Bundle, shape: ModelShape, checkpoint: Path) -> None:
    largest = int(Trie.load(bundle.path(TRIE_DIRECTORY)).child_tokens.max())
    if largest >= shape.vocabulary:
        raise ArtefactError(
            f"{checkpoint}: a name of the catalogue has token {largest}, the model knows "
            f"{shape.vocabulary} (config.json: vocab_size)"
        )
