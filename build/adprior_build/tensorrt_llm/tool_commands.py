"""The exact commands that turn a checkpoint into an engine, with every size and plugin explicit."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adprior_build.tensorrt_llm.deployment import Deployment
from adprior_build.tensorrt_llm.engine_sizes import TOKENS_PER_BLOCK, EngineSizes
from adprior_build.tensorrt_llm.model_shape import GEMMA_SCRIPT, ModelShape

EXAMPLES: Final = Path("/app/examples")
"""TensorRT-LLM's example scripts in the image."""

CHECKPOINT: Final = "checkpoint"
"""The Hugging Face checkpoint in the work directory, in the layout that the scripts read."""
CALIBRATION: Final = "calibration"
"""The directory of fp8's ``train.jsonl``, with prompts under ``text``, in the work directory."""

_QUANTIZE_SCRIPT: Final = "quantization/quantize.py"
_CALIBRATION_SIZE: Final = 512

CACHE: Final = "cache"
"""The tools' home, caches and temporary files, in the work directory."""

_OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_PLACES: Final = (
    "HOME",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "HF_HOME",
    "CUDA_CACHE_PATH",
    "TORCHINDUCTOR_CACHE_DIR",
    "TORCH_EXTENSIONS_DIR",
    "TRITON_CACHE_DIR",
)


def step_environment(work: Path) -> dict[str, str]:
    """Return the environment of every command: no downloads, and all caches in ``work``.

    PyTorch, the Triton compiler and modelopt load libraries that they have just compiled. From a
    /tmp that is mounted noexec, as Docker mounts a tmpfs, they could not.
    """
    return _OFFLINE | dict.fromkeys(_PLACES, str(work / CACHE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command.

    Attributes:
        name: ``convert``, ``quantise`` or ``compile``.
        command: The program and its arguments.
    """

    name: str
    command: tuple[str, ...]

    def to_shell(self) -> str:
        """Return the command for a shell, one option per line."""
        lines: list[str] = []
        for word in self.command:
            if word.startswith("--") or not lines:
                lines.append(shlex.quote(word))
            else:
                lines[-1] += f" {shlex.quote(word)}"
        return " \\\n  ".join(lines)


def engine_steps(
    deployment: Deployment,
    shape: ModelShape,
    sizes: EngineSizes,
    *,
    work: Path,
    engine: Path,
    examples: Path = EXAMPLES,
) -> list[Step]:
    """Return the commands in order: first to TensorRT-LLM's checkpoint, then to the engine.

    Args:
        deployment: The GPU and its load.
        shape: The model's shape.
        sizes: The engine's sizes.
        work: Directory of the inputs (see `tool_inputs`) and of intermediate files.
        engine: Directory of the engine.
        examples: The image's example scripts.
    """
    if deployment.quantisation == "fp8":
        first = _quantise(deployment, sizes, work, examples)
    else:
        first = _convert(deployment, shape, work, examples)
    return [first, _compile(deployment, sizes, work, engine)]


def _convert(deployment: Deployment, shape: ModelShape, work: Path, examples: Path) -> Step:
    script = shape.family.script
    options = {
        "--model_dir": str(work / CHECKPOINT),
        "--output_dir": str(work / "converted"),
        "--dtype": deployment.dtype,
    }
    if script == GEMMA_SCRIPT:
        options |= {"--ckpt-type": "hf", "--world-size": "1"}
    else:
        options |= {"--tp_size": "1", "--workers": "1"}
    words = ("python3", str(examples / script), *_flatten(options), "--load_model_on_cpu")
    return Step(name="convert", command=words)


def _quantise(deployment: Deployment, sizes: EngineSizes, work: Path, examples: Path) -> Step:
    options = {
        "--model_dir": str(work / CHECKPOINT),
        "--output_dir": str(work / "converted"),
        "--dtype": deployment.dtype,
        "--qformat": deployment.quantisation,
        "--calib_dataset": str(work / CALIBRATION),
        "--calib_size": str(_CALIBRATION_SIZE),
        "--calib_max_seq_length": str(sizes.max_seq_len),
        "--tokenizer_max_seq_length": str(sizes.max_seq_len),
        "--batch_size": "1",
        "--tp_size": "1",
        "--device": "cuda",
    }
    script = str(examples / _QUANTIZE_SCRIPT)
    return Step(name="quantise", command=("python3", script, *_flatten(options)))


def _compile(deployment: Deployment, sizes: EngineSizes, work: Path, engine: Path) -> Step:
    quantised = deployment.quantisation == "fp8"
    options = {
        "--checkpoint_dir": str(work / "converted"),
        "--output_dir": str(engine),
        "--max_batch_size": str(sizes.max_batch_size),
        "--max_input_len": str(sizes.max_input_len),
        "--max_seq_len": str(sizes.max_seq_len),
        "--max_beam_width": str(sizes.max_beam_width),
        "--max_num_tokens": str(sizes.max_num_tokens),
        "--kv_cache_type": "paged",
        "--tokens_per_block": str(TOKENS_PER_BLOCK),
        "--remove_input_padding": "enable",
        "--context_fmha": "enable",
        "--use_paged_context_fmha": "enable",
        # Only for an fp8 KV cache; ours has 16 bits, for precise log-probabilities.
        "--use_fp8_context_fmha": "disable",
        "--gpt_attention_plugin": deployment.dtype,
        # Recommended for 16 bits, not for fp8 (useful-build-time-flags.md).
        "--gemm_plugin": "disable" if quantised else deployment.dtype,
        # Several profiles are faster, but then the load decides which kernels run, and so the
        # last digits.
        "--multiple_profiles": "disable",
        "--logits_dtype": "float32",
        # The default is the current directory.
        "--output_timing_cache": str(work / "timing.cache"),
        "--workers": "1",
        "--log_level": "info",
    }
    return Step(name="compile", command=("trtllm-build", *_flatten(options)))


def _flatten(options: dict[str, str]) -> tuple[str, ...]:
    return tuple(word for option in options.items() for word in option)
