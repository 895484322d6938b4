"""The first step of searches on the device: choose the most probable tokens, and extend them.

Everything has a size that the host knows before, and nothing waits for the host, so that a CUDA
graph can record it. One array comes back for each user, see `DeviceStep.answer`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch

from adprior_runtime.catalogue.first_tokens import FirstTokens
from adprior_runtime.engines.base import LogProbs
from adprior_runtime.engines.prompt_pass import PromptAnswer, StepSizes
from adprior_runtime.engines.ranked_tokens import RankedTokens
from adprior_runtime.engines.torch_cache import CacheBlock, PassCache
from adprior_runtime.engines.torch_decoder import PassTensors, TorchDecoder


@dataclass(frozen=True, eq=False, slots=True)
class DeviceTokens:
    """`FirstTokens` on the device; its attributes are the same, int64."""

    token_ids: torch.Tensor
    offsets: torch.Tensor
    next_ids: torch.Tensor

    @classmethod
    def of(cls, first: FirstTokens, device: torch.device) -> Self:
        """Copy a trie's first tokens to the device."""
        arrays = (first.token_ids, first.offsets, first.next_ids)
        return cls(*(torch.from_numpy(each.astype(np.int64)).to(device) for each in arrays))


class Prompts(NamedTuple):
    """Users' prompts that a pass has just read.

    Attributes:
        slots: int64 [users], their slots of the cache.
        lengths: int64 [users].
        longest: At least the largest length.
        last: float32 [users, hidden], the decoder's output for the last token of each.
        read: See `PassCache`.
    """

    slots: torch.Tensor
    lengths: torch.Tensor
    longest: int
    last: torch.Tensor
    read: slice | None


class DeviceStep(NamedTuple):
    """The first step of many users' searches of one trie.

    Attributes:
        tokens: The trie's first tokens.
        sizes: What is chosen, extended and returned.
    """

    tokens: DeviceTokens
    sizes: StepSizes

    def run(
        self, decoder: TorchDecoder, block: CacheBlock, prompts: Prompts
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take the step.

        Returns:
            What `answer` reads, float32 [users, any]; and the log-probabilities of all first
            tokens, float32 [users, tokens].
        """
        users, asked = len(prompts.last), len(self.tokens.token_ids)
        rows = torch.arange(users, device=prompts.last.device)[:, None].expand(users, asked)
        token_ids = self.tokens.token_ids.repeat(users)
        log_probs = decoder.log_probs(prompts.last, rows.flatten(), token_ids).view(users, asked)
        places = log_probs.topk(self.sizes.held).indices.sort().values
        held = log_probs.gather(1, places)
        others = log_probs.double().scatter(1, places, -torch.inf).logsumexp(1, keepdim=True)
        order = held.sort(descending=True, stable=True).indices[:, : self.sizes.width]
        extended = places.gather(1, order)
        parts = [_bits(places.int()), held, _bits(others), _bits(extended.int())]
        if self.sizes.most_next:
            parts.append(self._extend(decoder, block, prompts, extended))
        return torch.cat(parts, dim=1), log_probs

    def _extend(
        self, decoder: TorchDecoder, block: CacheBlock, prompts: Prompts, extended: torch.Tensor
    ) -> torch.Tensor:
        """Return the log-probabilities of what may follow: float32 [users, most_next].

        Args:
            decoder: The model.
            block: Keys and values of the prompts; those of the tokens are written behind them.
            prompts: The prompts.
            extended: int64 [users, width], places of first tokens.
        """
        tokens, (_, width, most_next) = self.tokens, self.sizes
        longest = prompts.longest + width
        lengths = prompts.lengths[:, None].expand_as(extended).contiguous()  # also the positions
        own = lengths + torch.arange(width, device=extended.device)
        visible = torch.arange(longest, device=extended.device) < lengths[:, :, None]
        stream = decoder.run(
            PassCache(block, prompts.slots, prompts.lengths, lengths, longest, prompts.read),
            PassTensors(
                token_ids=tokens.token_ids[extended],
                positions=lengths,
                visible=visible.scatter(2, own[:, :, None], value=True),
            ),
        )
        begins, stops = tokens.offsets[extended], tokens.offsets[extended + 1]
        ends = (stops - begins).cumsum(dim=1)
        numbers = torch.arange(most_next, device=extended.device)
        numbers = numbers.expand(len(extended), -1).contiguous()
        above = torch.searchsorted(ends, numbers, right=True).clamp(max=width - 1)
        places = numbers + (stops - ends).gather(1, above)  # what is beyond the last is not read
        next_ids = tokens.next_ids[places.clamp(max=len(tokens.next_ids) - 1)]
        rows = above + width * torch.arange(len(extended), device=extended.device)[:, None]
        found = decoder.log_probs(stream.flatten(0, 1), rows.flatten(), next_ids.flatten())
        return found.view(numbers.shape)

    def answer(
        self, row: LogProbs, first: FirstTokens, read_all: Callable[[], LogProbs]
    ) -> PromptAnswer:
        """Return one user's answer.

        Args:
            row: float32 [any], the user's row of what `run` returns, on the host.
            first: The trie's first tokens.
            read_all: Fetches the log-probabilities of all of them.
        """
        held, width, _ = self.sizes
        whole, extended = row.view(np.int32), 2 * held + 2  # whole numbers, and where those begin
        asked, log_probs = len(first.token_ids), row[held : 2 * held]
        ranked = RankedTokens(
            asked=asked,
            places=whole[:held].astype(np.int64),
            log_probs=log_probs,
            others_log_mass=float(row[2 * held : extended].view(np.float64)[0]),
            read_all=read_all if held < asked else lambda: log_probs,
        )
        after = extended + width
        return PromptAnswer(first, ranked, whole[extended:after].astype(np.int64), row[after:])


def _bits(values: torch.Tensor) -> torch.Tensor:
    """Return numbers as float32 of the same bits, so that one array can hold all."""
    return values.contiguous().view(torch.float32)
