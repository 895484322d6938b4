"""Every size of an engine, from a deployment, a model and the longest name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from adprior_build.tensorrt_llm.deployment import Deployment
from adprior_build.tensorrt_llm.model_shape import ModelShape
from adprior_runtime.errors import InvalidInputError

TOKENS_PER_BLOCK: Final = 32
"""Tokens per block of the paged KV cache; also ``trtllm-build``'s default."""

_USUAL_STEP_TOKENS: Final = 8192
"""Tokens per step, fewer if all prompts together are shorter; TensorRT-LLM's default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSizes:
    """The sizes that ``trtllm-build`` takes, by its names.

    Attributes:
        max_batch_size: Concurrent users.
        max_input_len: The longest prompt.
        max_seq_len: The longest prompt with the longest name.
        max_beam_width: Beams per request.
        max_num_tokens: Tokens per step: new prompts, and the beams of all other users.
    """

    max_batch_size: int
    max_input_len: int
    max_seq_len: int
    max_beam_width: int
    max_num_tokens: int

    @classmethod
    def of(cls, deployment: Deployment, name_tokens: int) -> EngineSizes:
        """Derive the sizes.

        A step must hold one whole prompt beside the beams of all other users; otherwise that prompt
        would wait forever. Larger steps process prompts together, and take more memory.

        Args:
            deployment: The deployment.
            name_tokens: The longest name of the catalogue, terminator included.

        Raises:
            InvalidInputError: The beam width exceeds the length of a sequence.
        """
        users, width = deployment.concurrency, deployment.beam_width
        prompt = deployment.prompt_tokens
        longest = prompt + name_tokens + deployment.spare_name_tokens
        usual = min(_USUAL_STEP_TOKENS, users * prompt)
        wanted = max(prompt + (users - 1) * width, users * width, usual)
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
            max_num_tokens=min(wanted, users * longest),  # trtllm-build's own limit
        )

    @property
    def name_tokens(self) -> int:
        """The longest name that fits, terminator included."""
        return self.max_seq_len - self.max_input_len

    def check_fits_model(self, shape: ModelShape) -> None:
        """Refuse sequences beyond a model's positions or its attention window.

        With a window, the runtime would have to drop old blocks, which it cannot do with beams
        (``kvCacheManager.cpp``: "detachBlock does not support beamWidth > 1").

        Raises:
            InvalidInputError: The message names the limit that is exceeded.
        """
        for limit, name in ((shape.positions, "positions"), (shape.window, "attention window")):
            if limit is not None and self.max_seq_len > limit:
                raise InvalidInputError(
                    f"deployment: prompts of {self.max_input_len} and names of {self.name_tokens} "
                    f"tokens do not fit the model's {name} of {limit}; lower prompt_tokens"
                )
