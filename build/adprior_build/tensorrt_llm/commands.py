"""The exact commands that turn a checkpoint into an engine, every size and plugin spelt out."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adprior_build.tensorrt_llm.deployment import Deployment
from adprior_build.tensorrt_llm.model_shape import GEMMA_SCRIPT, ModelShape
from adprior_build.tensorrt_llm.sizes import TOKENS_PER_BLOCK, EngineSizes

EXAMPLES: Final = Path("/app/examples")
"""Where the image keeps TensorRT-LLM's example scripts."""

QUANTIZE_SCRIPT: Final = "quantization/quantize.py"

CALIBRATION_SIZE: Final = 512

OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""The environment of every step: whatever a script asks a hub for, it does not get."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where the steps find and put things.

    Attributes:
        checkpoint: The Hugging Face checkpoint, in the layout that the image's scripts read.
        calibration: A directory with ``train.jsonl``, prompts under ``text``; for fp8.
        converted: TensorRT-LLM's checkpoint.
        engine: The engine.
        timing_cache: TensorRT's, which else lands in the current directory.
        examples: The image's example scripts.
    """

    checkpoint: Path
    calibration: Path
    converted: Path
    engine: Path
    timing_cache: Path
    examples: Path = EXAMPLES

    @classmethod
    def below(cls, work: Path, engine: Path, examples: Path = EXAMPLES) -> Paths:
        """Return the usual places below a work directory."""
        return cls(
            checkpoint=work / "checkpoint",
            calibration=work / "calibration",
            converted=work / "converted",
            engine=engine,
            timing_cache=work / "timing.cache",
            examples=examples,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command.

    Attributes:
        name: What it does, in a word: ``convert``, ``quantise`` or ``compile``.
        command: Its words.
    """

    name: str
    command: tuple[str, ...]

    def to_shell(self) -> str:
        """Return the command for a shell, one option a line."""
        lines: list[str] = []
        for word in self.command:
            if word.startswith("--") or not lines:
                lines.append(shlex.quote(word))
            else:
                lines[-1] += f" {shlex.quote(word)}"
        return " \\\n  ".join(lines)


def engine_steps(
    deployment: Deployment, shape: ModelShape, sizes: EngineSizes, paths: Paths
) -> list[Step]:
    """Return the steps in order: to TensorRT-LLM's checkpoint, then to the engine."""
    first = _quantise if deployment.quantisation == "fp8" else _convert
    return [first(deployment, shape, sizes, paths), _compile(deployment, sizes, paths)]


def _convert(deployment: Deployment, shape: ModelShape, _: EngineSizes, paths: Paths) -> Step:
    script = shape.family.script
    options = {
        "--model_dir": str(paths.checkpoint),
        "--output_dir": str(paths.converted),
        "--dtype": deployment.dtype,
    }
    if script == GEMMA_SCRIPT:
        options |= {"--ckpt-type": "hf", "--world-size": str(deployment.tensor_parallelism)}
    else:
        options |= {"--tp_size": str(deployment.tensor_parallelism), "--workers": "1"}
    words = ("python3", str(paths.examples / script), *_flatten(options), "--load_model_on_cpu")
    return Step(name="convert", command=words)


def _quantise(deployment: Deployment, _: ModelShape, sizes: EngineSizes, paths: Paths) -> Step:
    options = {
        "--model_dir": str(paths.checkpoint),
        "--output_dir": str(paths.converted),
        "--dtype": deployment.dtype,
        "--qformat": deployment.quantisation,
        "--calib_dataset": str(paths.calibration),
        "--calib_size": str(CALIBRATION_SIZE),
        "--calib_max_seq_length": str(sizes.max_seq_len),
        "--tokenizer_max_seq_length": str(sizes.max_seq_len),
        "--batch_size": "1",
        "--tp_size": str(deployment.tensor_parallelism),
        "--device": "cuda",
    }
    script = str(paths.examples / QUANTIZE_SCRIPT)
    return Step(name="quantise", command=("python3", script, *_flatten(options)))


def _compile(deployment: Deployment, sizes: EngineSizes, paths: Paths) -> Step:
    quantised = deployment.quantisation == "fp8"
    options = {
        "--checkpoint_dir": str(paths.converted),
        "--output_dir": str(paths.engine),
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
        # Only with an fp8 KV cache; ours is of 16 bits, for the log-probabilities' sake.
        "--use_fp8_context_fmha": "disable",
        "--gpt_attention_plugin": deployment.dtype,
        # Recommended on for 16 bits and off for fp8 (useful-build-time-flags.md).
        "--gemm_plugin": "disable" if quantised else deployment.dtype,
        # More profiles are faster, but the load would choose the kernels, and so the last digits.
        "--multiple_profiles": "disable",
        "--logits_dtype": "float32",
        "--output_timing_cache": str(paths.timing_cache),
        "--workers": "1",
        "--log_level": "info",
    }
    return Step(name="compile", command=("trtllm-build", *_flatten(options)))


def _flatten(options: dict[str, str]) -> tuple[str, ...]:
    return tuple(word for option in options.items() for word in option)
