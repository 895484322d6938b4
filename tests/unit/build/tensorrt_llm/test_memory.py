from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_build.tensorrt_llm.deployment import Deployment
from adprior_build.tensorrt_llm.engine_sizes import TOKENS_PER_BLOCK, EngineSizes
from adprior_build.tensorrt_llm.memory import (
    GIB,
    MemoryEstimate,
    check_calibration_fits,
    describe_fit,
    largest_concurrency,
)
from adprior_build.tensorrt_llm.model_shape import ModelShape
from adprior_runtime.errors import InvalidInputError
from support.gpu_golden import MODELS

LLAMA = ModelShape.read(MODELS / "llama-3-8b")
L4 = Deployment(gpu="L4", memory_gib=22.4, prompt_tokens=1024, beam_width=32, concurrency=8)


def estimate(deployment: Deployment, name_tokens: int = 8) -> MemoryEstimate:
    return MemoryEstimate.of(deployment, LLAMA, EngineSizes.of(deployment, name_tokens))


@given(
    prompt=st.integers(32, 4000),
    width=st.integers(2, 127),
    users=st.integers(1, 512),
    name=st.integers(1, 64),
)
def test_a_step_holds_a_prompt_beside_all_other_beams(
    prompt: int, width: int, users: int, name: int
) -> None:
    deployment = replace(L4, prompt_tokens=prompt, beam_width=width, concurrency=users)
    if width > prompt + name:
        with pytest.raises(InvalidInputError, match="is more than the"):
            EngineSizes.of(deployment, name)
        return
    sizes = EngineSizes.of(deployment, name)
    assert sizes.max_num_tokens >= users * width
    assert sizes.max_num_tokens >= prompt
    assert sizes.max_num_tokens <= users * sizes.max_seq_len  # what trtllm-build cuts at
    assert sizes.max_num_tokens >= TOKENS_PER_BLOCK  # what trtllm-build refuses below
    assert sizes.max_seq_len == prompt + name


def test_spare_tokens_leave_room_for_longer_names() -> None:
    sizes = EngineSizes.of(replace(L4, spare_name_tokens=4), 8)
    assert sizes.max_seq_len == 1036
    assert sizes.name_tokens == 12


@pytest.mark.parametrize("limit", ["positions", "window"])
def test_sequences_beyond_the_model_are_refused(limit: str) -> None:
    sizes = EngineSizes.of(L4, 8)
    fits = {"positions": replace(LLAMA, positions=1032), "window": replace(LLAMA, window=1032)}
    short = {"positions": replace(LLAMA, positions=1031), "window": replace(LLAMA, window=1031)}
    sizes.check_fits_model(fits[limit])
    with pytest.raises(InvalidInputError, match="do not fit the model's"):
        sizes.check_fits_model(short[limit])


def test_weights_take_two_bytes_and_fp8_one() -> None:
    assert estimate(L4).weights == 2 * 8_030_261_248
    halved = LLAMA.layer_weights + 2 * LLAMA.other_weights
    assert estimate(replace(L4, quantisation="fp8")).weights == halved


@given(prompt=st.integers(32, 2100), name=st.integers(1, 40), width=st.integers(2, 31))
def test_the_cache_of_a_user_is_that_of_the_worst_prompt(
    prompt: int, name: int, width: int
) -> None:
    """The scheduler's count, for every prompt length (getRemainingBlocksToCompletion)."""
    deployment = replace(L4, prompt_tokens=prompt, beam_width=width)
    block = 2 * LLAMA.layers * LLAMA.kv_heads * LLAMA.head_size * 2 * TOKENS_PER_BLOCK

    def blocks(length: int) -> int:
        shared = length // TOKENS_PER_BLOCK
        return shared + (-(-(length + name) // TOKENS_PER_BLOCK) - shared) * width

    worst = max(blocks(length) for length in range(1, prompt + 1))
    assert estimate(deployment, name).kv_per_user == worst * block


@pytest.mark.parametrize(
    ("model", "quantisation", "is_experimental"),
    [
        ("qwen3-0.6b", "fp8", True),
        ("qwen3-1.7b", "fp8", True),
        ("qwen3-1.7b", "none", False),
        ("llama-3-8b", "fp8", False),
    ],
)
def test_fp8_with_qwen3_is_marked_experimental(
    model: str, quantisation: str, *, is_experimental: bool
) -> None:
    shape = ModelShape.read(MODELS / model)
    lines = describe_fit(replace(L4, quantisation=quantisation), shape, 8).splitlines()
    marked = "fp8 with Qwen3ForCausalLM is experimental: TensorRT-LLM #9298 is open"
    assert (marked in lines) == is_experimental


def test_a_refusal_has_the_numbers_and_the_largest_concurrency() -> None:
    with pytest.raises(InvalidInputError) as caught:
        describe_fit(replace(L4, concurrency=64), LLAMA, 8)
    text = str(caught.value)
    largest = largest_concurrency(L4, LLAMA, 8)
    assert f"the largest concurrency that fits is {largest}" in text
    assert "weights 15.0" in text
    assert "L4 has 22.4 GiB" in text
    assert "\n" not in text
    describe_fit(replace(L4, concurrency=largest), LLAMA, 8)
    with pytest.raises(InvalidInputError):
        describe_fit(replace(L4, concurrency=largest + 1), LLAMA, 8)


def test_a_model_that_does_not_fit_at_all() -> None:
    with pytest.raises(InvalidInputError, match="not even one user fits: use fp8"):
        describe_fit(replace(L4, memory_gib=12.0), LLAMA, 8)


@given(memory=st.floats(1, 200), users=st.integers(1, 600))
def test_an_estimate_that_fits_is_within_the_memory(memory: float, users: int) -> None:
    deployment = replace(L4, memory_gib=memory, concurrency=users)
    found = estimate(deployment)
    if found.fits:
        assert found.loaded + found.kv_needed <= memory * GIB
        assert largest_concurrency(deployment, LLAMA, 8) >= users


def test_calibration_loads_the_checkpoint_as_it_is_stored() -> None:
    fp8, stored = replace(L4, quantisation="fp8"), replace(LLAMA, stored_bytes=4)
    check_calibration_fits(fp8, LLAMA)
    check_calibration_fits(L4, stored)
    with pytest.raises(InvalidInputError, match=r"29\.9 GiB at 4 bytes a parameter, L4 has 22\.4"):
        check_calibration_fits(fp8, stored)
