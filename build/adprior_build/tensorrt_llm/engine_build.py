"""``adprior build --engine tensorrt-llm``: check, estimate, then build or print the commands."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from adprior_build.tensorrt_llm.deployment import Deployment
from adprior_build.tensorrt_llm.engine_files import VERSION_DIRECTORY
from adprior_build.tensorrt_llm.engine_sizes import EngineSizes
from adprior_build.tensorrt_llm.memory import check_calibration_fits, describe_fit
from adprior_build.tensorrt_llm.model_shape import ModelShape
from adprior_build.tensorrt_llm.tool_commands import (
    CACHE,
    CALIBRATION,
    CHECKPOINT,
    Step,
    engine_steps,
    step_environment,
)
from adprior_build.tensorrt_llm.tool_inputs import (
    check_calibration,
    write_calibration,
    write_checkpoint,
)
from adprior_build.tensorrt_llm.tools import check_container, find_gpu, require_gpu, run_step
from adprior_runtime.bundle import PROMPT_FILE, TRIE_DIRECTORY, Bundle
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.errors import ArtefactError, InvalidInputError
from adprior_runtime.repository.tensorrt_llm_files import NeededSizes, find_engine

_WORK_MARKER: Final = ".adprior-work"


@dataclass(frozen=True, kw_only=True)
class EngineBuild:
    """The build of one engine for one bundle.

    Attributes:
        deployment: The GPU and its load.
        bundle: The bundle that the engine is for.
        checkpoint: The checkpoint of ``adprior train``.
        work: Directory of intermediate files, absolute; removed after success.
        examples: The image's example scripts.
        calibration_users: User contexts, one per line; only for fp8.
    """

    deployment: Deployment
    bundle: Bundle
    checkpoint: Path
    work: Path
    examples: Path
    calibration_users: Path | None = None

    @cached_property
    def shape(self) -> ModelShape:
        """The checkpoint's shape."""
        return ModelShape.read(self.checkpoint)

    @cached_property
    def sizes(self) -> EngineSizes:
        """The engine's sizes."""
        return EngineSizes.of(self.deployment, self.bundle.manifest.longest_name_tokens)

    def check(self) -> None:
        """Check the deployment, and print the memory estimate.

        Raises:
            InvalidInputError: It does not fit the GPU, the model or the bundle.
        """
        deployment, shape = self.deployment, self.shape
        needed = NeededSizes.of(self.bundle.manifest, self.bundle.path(PROMPT_FILE))
        if deployment.prompt_tokens < needed.prompt_tokens:
            raise InvalidInputError(
                f"deployment: prompt_tokens is {deployment.prompt_tokens}, the checkpoint's "
                f"prompts have up to {needed.prompt_tokens} ({PROMPT_FILE}: max_prompt_tokens)"
            )
        if self.bundle.manifest.forecast_k > deployment.beam_width:
            raise InvalidInputError(
                f"deployment: beam_width is {deployment.beam_width}, a forecast of "
                f"{self.bundle.manifest.forecast_k} advertisers (--forecast-k) needs as many beams"
            )
        self.sizes.check_fits_model(shape)
        shape.check_dtype(deployment.dtype)
        _check_vocabulary(self.bundle, shape, self.checkpoint)
        if self.calibration_users is not None:
            check_calibration(self.calibration_users, self.checkpoint)
        print(describe_fit(deployment, shape, needed.name_tokens))
        check_calibration_fits(deployment, shape)

    def print_commands(self, repository: Path) -> None:
        """Prepare the work directory and print the commands, for a machine with the GPU."""
        self._prepare_work(needs_weights=False)
        environment = step_environment(self.work)
        exports = " ".join(f"{key}={shlex.quote(value)}" for key, value in environment.items())
        print(f"\n# inside the image, from {self.work}\nexport {exports}")
        for step in self._steps(repository.absolute() / VERSION_DIRECTORY):
            print(f"\n# {step.name}\n{step.to_shell()}")

    def run(self, repository: Path) -> None:
        """Build the engine into a repository that is being written.

        Raises:
            EnvironmentProblemError: The container, driver or GPU is wrong, or a step failed.
            ArtefactError: The tools left no engine.
        """
        engine = repository.absolute() / VERSION_DIRECTORY
        steps = self._steps(engine)
        check_container(self.examples, steps)
        require_gpu(self.deployment, find_gpu())
        self._prepare_work(needs_weights=True)
        for number, step in enumerate(steps, start=1):
            print(f"adprior build: {step.name} ({number} of {len(steps)}) ...", flush=True)
            run_step(step, self.work)
        if find_engine(engine) is None:
            raise ArtefactError(f"step {steps[-1].name} succeeded, but left no engine in {engine}")
        shutil.rmtree(self.work)

    def _steps(self, engine: Path) -> list[Step]:
        return engine_steps(
            self.deployment,
            self.shape,
            self.sizes,
            work=self.work,
            engine=engine,
            examples=self.examples,
        )

    def _prepare_work(self, *, needs_weights: bool) -> None:
        _make_work(self.work)
        (self.work / CACHE).mkdir()
        write_checkpoint(self.checkpoint, self.work / CHECKPOINT, needs_weights=needs_weights)
        if self.calibration_users is not None:
            write_calibration(self.calibration_users, self.checkpoint, self.work / CALIBRATION)


def _make_work(work: Path) -> None:
    """Make the work directory; an earlier one is emptied."""
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
            f"{checkpoint}: a name of the catalogue has token {largest}, the model has "
            f"{shape.vocabulary} (config.json: vocab_size)"
        )
