"""Forward passes in torch, for one or many users, with the KV cache in the device's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import numpy as np
import torch

from adprior_runtime.catalogue.first_tokens import FirstTokens
from adprior_runtime.engines.architecture import Architecture
from adprior_runtime.engines.base import LogProbs
from adprior_runtime.engines.joined_pass import JoinedPass, PassSizes, join_passes, power_of_two
from adprior_runtime.engines.packed_tree import UserPass
from adprior_runtime.engines.pass_loop import MOST_SEARCHES
from adprior_runtime.engines.prompt_pass import PromptPass, StepSizes
from adprior_runtime.engines.torch_cache import CacheBlock, DeviceCache, PassCache, neighbours
from adprior_runtime.engines.torch_decoder import PassTensors, TorchDecoder
from adprior_runtime.engines.torch_first_step import DeviceStep, DeviceTokens, Prompts
from adprior_runtime.engines.torch_graphs import Record, ReplayedPasses
from adprior_runtime.engines.torch_weights import DecoderWeights
from adprior_runtime.errors import DeviceFullError, DeviceLostError

FIRST_ROOM: Final = 1024
"""Positions of each user that a GPU's cache has room for at first. More are copied once."""


class TorchPasses:
    """Runs forward passes of one model.

    Args:
        of: The architecture.
        weights: The weights, on the device.
        device: The device.
        make_record: Makes what records passes, for a GPU: the cache has room for all users from
            the start, and passes are padded to sizes that come again, and replayed. None computes
            each as it is.
    """

    def __init__(
        self,
        of: Architecture,
        weights: DecoderWeights,
        device: torch.device,
        make_record: Callable[[], Record] | None = None,
    ) -> None:
        self._device = device
        self._decoder = TorchDecoder(of, weights)
        self._replayed: ReplayedPasses[tuple[PassSizes, DeviceStep | None]] | None = None
        self._spare: DeviceCache | None = None
        self._tokens: dict[FirstTokens, DeviceTokens] = {}  # of each trie that was searched
        if make_record is None:
            self._block = CacheBlock(of, device)
        else:  # the prompts' common head and padding users have a slot each
            self._replayed = ReplayedPasses(self._compute, make_record)
            room = min(FIRST_ROOM, 1 << (of.max_positions - 1).bit_length())
            self._block = CacheBlock(
                of, device, slots=MOST_SEARCHES + 2, room=room, moved=self._replayed.forget
            )
            self._spare = DeviceCache(self._block)

    def empty_cache(self) -> DeviceCache:
        """See `Passes.empty_cache`."""
        return DeviceCache(self._block)

    def start(self, parts: Sequence[UserPass]) -> Callable[[], list[Any]]:
        """See `JoinablePasses.start`. A CPU computes when it is waited for.

        Raises:
            DeviceFullError: The device has too little memory for this pass. Nothing is kept.
            DeviceLostError: The device computes no more. The returned function also raises both.
        """
        answer = None
        if self._device.type != "cpu":
            with _device_faults(self._device):
                answer = self._start(parts)

        def wait() -> list[Any]:
            with _device_faults(self._device):
                return (answer or self._start(parts))()

        return wait

    @torch.inference_mode()
    def _start(self, parts: Sequence[UserPass]) -> Callable[[], list[Any]]:
        """Queue a pass; return a function that waits for its answers."""
        passes, slots = [part.tree_pass for part in parts], [part.cache.slot for part in parts]
        sizes = PassSizes.of(passes)
        if self._replayed is not None:
            sizes = sizes.rounded_up()
        prompts = [part for part in parts if isinstance(part, PromptPass)]  # all, or none
        step = self._first_step(prompts) if prompts else None
        self._block.make_room(sizes.longest + (step.sizes.width if step else 0))
        spare = self._spare.slot if self._spare else slots[0]
        flat = torch.from_numpy(join_passes(passes, slots, sizes, spare))
        if self._device.type == "cuda":  # from other memory, the copy would wait for earlier passes
            flat = flat.pin_memory()
        given = flat.to(self._device, non_blocking=True)
        if self._replayed is not None:
            found, *kept = self._replayed.run((sizes, step), given)
            kept = [each[: len(parts)].clone() for each in kept]
        else:
            found, *kept = self._compute((sizes, step), given, neighbours(slots))
        for part in parts:
            if part.keep:
                part.cache.keep(len(part.tree_pass.token_ids))
        if step is None:
            return _Answer.of(found, [len(each.pair_tokens) for each in passes]).read
        answer = _Answer.of(found[: len(parts)].flatten(), [found.shape[1]] * len(parts))
        return lambda: [
            step.answer(row, part.first, partial(self._fetch, log_probs))
            for row, part, log_probs in zip(answer.read(), prompts, kept[0], strict=True)
        ]

    def _first_step(self, prompts: Sequence[PromptPass]) -> DeviceStep:
        """Return the step of prompts of one kind, as wide as the widest."""
        first, width = prompts[0].first, max(part.width for part in prompts)
        if first not in self._tokens:
            self._tokens[first] = DeviceTokens.of(first, self._device)
        if self._replayed is not None:
            width = power_of_two(width)
        return DeviceStep(self._tokens[first], StepSizes.of(first, width))

    def _fetch(self, values: torch.Tensor) -> LogProbs:
        """Return values of the device, when all that was queued is done."""
        with _device_faults(self._device):
            found: LogProbs = values.cpu().numpy()
        return found

    def _compute(
        self,
        plan: tuple[PassSizes, DeviceStep | None],
        flat: torch.Tensor,
        read: slice | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Run a pass without waiting for the device.

        Args:
            plan: The sizes of the pass, and what follows it if it reads prompts.
            flat: From `join_passes`, on the device.
            read: See `PassCache`.

        Returns:
            The log-probabilities, float32 [pairs]; of prompts what `DeviceStep.run` returns.
        """
        sizes, step = plan
        given = JoinedPass.of(flat.long(), sizes)
        cache = PassCache(
            self._block, given.slots, given.starts, given.positions, sizes.longest, read
        )
        places = torch.arange(sizes.longest, device=self._device)
        visible = (places < given.visible[:, :, None]).scatter(2, given.seen, value=True)
        stream = self._decoder.run(
            cache,
            PassTensors(token_ids=given.token_ids, positions=given.positions, visible=visible),
        )
        wanted = stream.flatten(0, 1)[given.wanted]
        if step is None:
            return (self._decoder.log_probs(wanted, given.pair_rows, given.pair_tokens),)
        lengths = given.visible.amax(dim=1)  # a prompt's last token sees all of it
        prompts = Prompts(given.slots, lengths, sizes.longest, wanted, read)
        return step.run(self._decoder, self._block, prompts)


@dataclass(frozen=True, slots=True)
class _Answer:
    """A pass's log-probabilities on their way to the host.

    Attributes:
        values: float32 [pairs], on the host.
        copied: Has happened when they are there; None on the CPU.
        counts: How many are each user's.
    """

    values: torch.Tensor
    copied: torch.cuda.Event | None
    counts: Sequence[int]

    @classmethod
    def of(cls, log_probs: torch.Tensor, counts: Sequence[int]) -> Self:
        """Begin to copy; what follows in the device's queue does not wait for it."""
        is_gpu = log_probs.is_cuda
        values = torch.empty(log_probs.shape, pin_memory=is_gpu)
        values.copy_(log_probs, non_blocking=True)
        copied = torch.cuda.Event() if is_gpu else None  # type: ignore[no-untyped-call]
        if copied is not None:
            copied.record()
        return cls(values, copied, counts)

    def read(self) -> list[LogProbs]:
        """Wait for the copy; return each user's."""
        if self.copied is not None:
            self.copied.synchronize()
        ends = np.cumsum(self.counts)
        return np.split(self.values.numpy()[: ends[-1]], ends[:-1])


@contextmanager
def _device_faults(device: torch.device) -> Iterator[None]:
    """Turn a fault of the device into an error with one line."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceFullError(f"device {device}: {first_line(error)}") from error
    except torch.AcceleratorError as error:
        raise DeviceLostError(f"device {device}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """Return the first line of a message; torch's have many."""
    return str(error).split("\n", maxsplit=1)[0]
