"""Every size of an engine, from a deployment, a model and the longest name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from adprior_build.tensorrt_llm.deployment import Deployment
from adprior_build.tensorrt_llm.model_shape import ModelShape
from adprior_runtime.engines.compiled_tensorrt_llm import NeededSizes
from adprior_runtime.errors import InvalidInputError

TOKENS_PER_BLOCK: Final = 32
"""Tokens in a block of the paged KV cache; ``trtllm-build``'s own default, set all the same."""

_MANY_TOKENS: Final = 8192
"""Tokens of prompts that one step takes, where there are as many; TensorRT-LLM's default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSizes:
    """What ``trtllm-build`` is told, by its own names.

    Attributes:
        max_batch_size: Users at once.
        max_input_len: The longest prompt.
        max_seq_len: The longest prompt and name.
        max_beam_width: Beams of every request.
        max_num_tokens: Tokens of one step: prompts that enter, and the beams of all others.
    """

    max_batch_size: int
    max_input_len: int
    max_seq_len: int
    max_beam_width: int
    max_num_tokens: int

    @classmethod
    def of(cls, deployment: Deployment, name_tokens: int) -> EngineSizes:
        """Derive the sizes.

        A step must hold one whole prompt beside the beams of all other users, so that nobody
        waits for a step that can never be. More lets prompts enter together, and costs memory.

        Args:
            deployment: The deployment.
            name_tokens: The longest name of the catalogue, terminator included.

        Raises:
            InvalidInputError: There are more beams than tokens.
        """
        users, width = deployment.concurrency, deployment.beam_width
        prompt = deployment.prompt_tokens
        longest = prompt + name_tokens + deployment.spare_name_tokens
        wanted = max(prompt + (users - 1) * width, users * width, min(_MANY_TOKENS, users * prompt))
        if width > longest:
            raise InvalidInputError(
                f"deployment: beam_width {width} is more than the {longest} tokens of the longest "
                "prompt and name; a step could not hold all beams"
            )
        return cls(
            max_batch_size=users,
            max_input_len=prompt,
            max_seq_len=longest,
            max_beam_width=width,
            max_num_tokens=min(wanted, users * longest),  # trtllm-build would cut what is beyond
        )

    @property
    def name_tokens(self) -> int:
        """The longest name that fits, terminator included."""
        return self.max_seq_len - self.max_input_len

    @property
    def needed(self) -> NeededSizes:
        """The same, as an engine's configuration is compared with."""
        return NeededSizes(
            prompt_tokens=self.max_input_len,
            name_tokens=self.name_tokens,
            beam_width=self.max_beam_width,
            concurrency=self.max_batch_size,
        )

    def check_fits_model(self, shape: ModelShape) -> None:
        """Refuse sequences beyond a model's positions or its attention window.

        With a window the runtime would have to drop old blocks, which it cannot with beams
        (``kvCacheManager.cpp``: "detachBlock does not support beamWidth > 1").

        Raises:
            InvalidInputError: Saying which limit.
        """
        for limit, name in ((shape.positions, "positions"), (shape.window, "attention window")):
            if limit is not None and self.max_seq_len > limit:
                raise InvalidInputError(
                    f"deployment: prompts of {self.max_input_len} and names of {self.name_tokens} "
                    f"tokens do not fit the model's {name} of {limit}; lower prompt_tokens"
                )


def with_concurrency(deployment: Deployment, concurrency: int) -> Deployment:
    """Return the deployment for another number of users at once."""
    return replace(deployment, concurrency=concurrency)
