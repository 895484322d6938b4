"""An estimate of the GPU memory of an engine, and whether a deployment fits.

    weights       2 bytes a parameter; with fp8, 1 byte for the layers' matrices
    KV cache      per user: blocks(prompt // 32) shared by all beams, and for each beam
                  ceil((prompt + name) / 32) - prompt // 32 blocks of its own, for the prompt length
                  that needs most. The scheduler reserves as many
                  (`getRemainingBlocksToCompletion`, kvCacheManager.cpp)
    activations   max_num_tokens x (4 hidden + the larger of attention and MLP) x 2 bytes x 2
    logits        users x beams x vocabulary x 4 bytes x 3, and the beams' bookkeeping
    runtime       1 GiB: CUDA context, libraries, workspaces of kernels

TensorRT-LLM's memory page (docs/source/legacy/reference/memory.md) says that activations grow with
``max_num_tokens`` by a factor that depends on the network and on TensorRT, and is known only after
the build. So this is an estimate: the factors 2 and 3 and the 1 GiB are our choice (the page's
sample log leaves 0.75 GiB of 79.1 unexplained). The KV cache takes a share of what is left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from adprior_build.tensorrt_llm.deployment import Deployment
from adprior_build.tensorrt_llm.engine_sizes import TOKENS_PER_BLOCK, EngineSizes
from adprior_build.tensorrt_llm.model_shape import ModelShape
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.tables import format_table

GIB: Final = 1024**3
_HALF: Final = 2
_ACTIVATION_FACTOR: Final = 2
_LOGIT_COPIES: Final = 3
_BOOKKEEPING: Final = 8
"""Values of int32 per beam and position in the decoder (ids, parents, indirection)."""
_RUNTIME: Final = GIB
_CALIBRATION_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes on the GPU.

    Attributes:
        total: The GPU's memory.
        weights, activations, logits, runtime: Memory of the loaded engine.
        kv_per_user: KV cache of one user, with all beams.
        prompt_blocks: The user's blocks that all beams share.
        beam_blocks: The user's blocks per beam.
        kv_share: Share of the remaining memory that becomes KV cache.
        concurrency: Concurrent users.
    """

    total: float
    weights: int
    activations: int
    logits: int
    kv_per_user: int
    prompt_blocks: int
    beam_blocks: int
    kv_share: float
    concurrency: int
    runtime: int = _RUNTIME

    @classmethod
    def of(cls, deployment: Deployment, shape: ModelShape, sizes: EngineSizes) -> MemoryEstimate:
        """Estimate by the module's formulas."""
        layer_bytes = 1 if deployment.quantisation == "fp8" else _HALF
        block = 2 * shape.layers * shape.kv_heads * shape.head_size * _HALF * TOKENS_PER_BLOCK
        shared, own = _most_blocks(sizes)
        attention = (2 * shape.heads + 2 * shape.kv_heads) * shape.head_size
        width = 4 * shape.hidden + max(attention, 3 * shape.intermediate)
        beams = sizes.max_batch_size * sizes.max_beam_width
        return cls(
            total=deployment.memory_gib * GIB,
            weights=layer_bytes * shape.layer_weights + _HALF * shape.other_weights,
            activations=sizes.max_num_tokens * width * _HALF * _ACTIVATION_FACTOR,
            logits=beams
            * 4
            * (_LOGIT_COPIES * shape.vocabulary + _BOOKKEEPING * sizes.max_seq_len),
            kv_per_user=block * (shared + own * sizes.max_beam_width),
            prompt_blocks=shared,
            beam_blocks=own,
            kv_share=deployment.kv_cache_share,
            concurrency=sizes.max_batch_size,
        )

    @property
    def loaded(self) -> int:
        """Memory of everything except the KV cache."""
        return self.weights + self.activations + self.logits + self.runtime

    @property
    def kv_available(self) -> float:
        """Memory that becomes KV cache."""
        return max(0.0, self.kv_share * (self.total - self.loaded))

    @property
    def kv_needed(self) -> int:
        """KV cache of all concurrent users."""
        return self.concurrency * self.kv_per_user

    @property
    def fits(self) -> bool:
        """Whether all concurrent users fit."""
        return self.total > self.loaded and self.kv_needed <= self.kv_available

    def to_table(self) -> str:
        """Return the estimate as a table in GiB."""
        per_user = (
            f"{self.concurrency} users x {self.kv_per_user / 1024**2:.1f} MiB "
            f"({self.prompt_blocks} blocks shared, {self.beam_blocks} a beam)"
        )
        rows = [
            ("weights", self.weights, ""),
            ("activations", self.activations, "estimate"),
            ("logits and beams", self.logits, "estimate"),
            ("runtime", self.runtime, "allowance"),
            ("KV cache needed", self.kv_needed, per_user),
            ("KV cache available", self.kv_available, f"{self.kv_share:g} of what is left"),
            ("GPU", self.total, "as nvidia-smi reports it"),
        ]
        return format_table(
            (("memory", "left"), ("GiB", "right"), ("", "left")),
            [(name, f"{size / GIB:.2f}", note) for name, size, note in rows],
        )


def _most_blocks(sizes: EngineSizes) -> tuple[int, int]:
    """Return the shared and per-beam blocks of the prompt length that needs the most memory.

    This need not be the longest prompt: each beam has its own copy of a last block that is not
    full, and of the next block that the name continues into.
    """
    longest = sizes.max_input_len
    lengths = range(max(1, longest - TOKENS_PER_BLOCK + 1), longest + 1)
    splits = [
        (length // TOKENS_PER_BLOCK, -(-(length + sizes.name_tokens) // TOKENS_PER_BLOCK))
        for length in lengths
    ]
    return max(
        ((shared, total - shared) for shared, total in splits),
        key=lambda blocks: blocks[0] + blocks[1] * sizes.max_beam_width,
    )


def describe_fit(deployment: Deployment, shape: ModelShape, name_tokens: int) -> str:
    """Return the table of a deployment that fits, the largest concurrency, and a known fault.

    Raises:
        InvalidInputError: It does not fit; with the numbers and the largest concurrency that does.
    """
    sizes = EngineSizes.of(deployment, name_tokens)
    estimate = MemoryEstimate.of(deployment, shape, sizes)
    largest = largest_concurrency(deployment, shape, name_tokens)
    if estimate.fits:
        room = f"{deployment.gpu} has room for {largest} users at once"
        return "\n".join([estimate.to_table(), room, *_warnings(deployment, shape)])
    numbers = (
        f"{estimate.loaded / GIB:.1f} GiB to load (weights {estimate.weights / GIB:.1f}) and "
        f"{estimate.kv_needed / GIB:.1f} GiB of KV cache, {deployment.gpu} has "
        f"{deployment.memory_gib:g} GiB, {estimate.kv_available / GIB:.1f} of it for KV cache"
    )
    advice = (
        f"the largest concurrency that fits is {largest}"
        if largest
        else "not even one user fits: use fp8, a narrower beam, shorter prompts or a larger GPU"
    )
    raise InvalidInputError(
        f"deployment: concurrency {deployment.concurrency} does not fit: it needs {numbers}; "
        f"{advice}"
    )


def _warnings(deployment: Deployment, shape: ModelShape) -> list[str]:
    fault = shape.family.fp8_fault
    if deployment.quantisation != "fp8" or not fault:
        return []
    return [f"fp8 with {shape.architecture} is experimental: TensorRT-LLM {fault} is open"]


def check_calibration_fits(deployment: Deployment, shape: ModelShape) -> None:
    """Refuse fp8 if its calibration, which loads the checkpoint as it is stored, does not fit.

    Raises:
        InvalidInputError: With the numbers.
    """
    size = (shape.layer_weights + shape.other_weights) * shape.stored_bytes
    if deployment.quantisation == "fp8" and size > _CALIBRATION_SHARE * deployment.memory_gib * GIB:
        raise InvalidInputError(
            f"deployment: fp8's calibration loads the checkpoint as it is stored, {size / GIB:.1f} "
            f"GiB at {shape.stored_bytes} bytes a parameter, {deployment.gpu} has "
            f"{deployment.memory_gib:g} GiB; store it in bfloat16 (transformers' save_pretrained)"
        )


def largest_concurrency(deployment: Deployment, shape: ModelShape, name_tokens: int) -> int:
    """Return the largest number of concurrent users that fits, up to 4096; 0 if none."""
    low, high = 0, 4096
    while low < high:
        middle = (low + high + 1) // 2
        candidate = replace(deployment, concurrency=middle)
        sizes = EngineSizes.of(candidate, name_tokens)
        if MemoryEstimate.of(candidate, shape, sizes).fits:
            low = middle
        else:
            high = middle - 1
    return low
