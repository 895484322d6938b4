"""The torch engine: packed tree attention in PyTorch, on a CPU or a GPU.

Weights and KV cache stay on the device. A pass sends token ids, positions and what each token sees,
and gets back the log-probabilities that it asked for. Searches in a
`adprior_runtime.engines.pass_loop.PassLoop` share passes. Everything is computed in single
precision, whatever the type that the weights are stored in: the certificate needs it
(`adprior_runtime.search.rounding`, docs/notebook.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch

from adprior_runtime.bundle import ARCHITECTURE_FILE, TORCH_WEIGHTS_FILE, Bundle
from adprior_runtime.cpu_count import threads_of_each
from adprior_runtime.engines.architecture import Architecture
from adprior_runtime.engines.base import LogProbs
from adprior_runtime.engines.joined_pass import JoinedPass, PassSizes, join_passes
from adprior_runtime.engines.packed_tree import PackedTreeEngine, UserPass
from adprior_runtime.engines.pass_loop import SharedPasses
from adprior_runtime.engines.torch_cache import CacheBlock, DeviceCache, PassCache, neighbours
from adprior_runtime.engines.torch_decoder import PassTensors, TorchDecoder
from adprior_runtime.engines.torch_graphs import GpuRecorder, Record, ReplayedPasses
from adprior_runtime.engines.torch_weights import DecoderWeights
from adprior_runtime.errors import DeviceLostError, EnvironmentProblemError

DEVICES: Final = ("cpu", "cuda")


class TorchEngine(PackedTreeEngine):
    """Runs the weights that `adprior_build.torch_model` writes.

    Attributes:
        vocabulary: Number of tokens that the model knows.
        device: Where it computes.
    """

    def __init__(
        self,
        directory: Path,
        *,
        threads: int = 0,
        head_ids: Sequence[int] = (),
        device: str = "cpu",
    ) -> None:
        """Load the model.

        Args:
            directory: Where the architecture and the weights are.
            threads: Threads of one forward pass on the CPU; 0 takes the processors this process may
                use. torch has one number for the whole process, and one precision of products.
            head_ids: Tokens that all prompts begin with; the model reads them once, here.
            device: ``cpu`` or ``cuda``.

        Raises:
            ArtefactError: The files are not such a model.
            EnvironmentProblemError: torch cannot use the device here, or its memory is too small.
        """
        self.device = _usable_device(device)
        of = Architecture.load(directory / ARCHITECTURE_FILE)
        if device == "cpu":
            torch.set_num_threads(threads_of_each(1, threads))
        # TF32 rounds factors to 11 bits: 8,192 times what the certificate allows.
        torch.set_float32_matmul_precision("highest")
        try:
            record = GpuRecorder() if device == "cuda" else None
            weights = DecoderWeights.load(directory / TORCH_WEIGHTS_FILE, of, self.device)
            super().__init__(
                SharedPasses(TorchPasses(of, weights, self.device, record)),
                vocabulary=of.vocabulary,
                max_positions=of.max_positions,
                head_ids=head_ids,
            )
        except RuntimeError as error:  # too little memory, on either device, among others
            raise EnvironmentProblemError(f"device {device}: {_first_line(error)}") from error

    @classmethod
    def of_bundle(cls, bundle: Bundle, *, threads: int = 0, device: str = "cpu") -> Self:
        """Load a bundle's model.

        Raises:
            ArtefactError, EnvironmentProblemError: As the constructor.
        """
        for name in (ARCHITECTURE_FILE, TORCH_WEIGHTS_FILE):
            bundle.path(name)
        head_ids = bundle.manifest.prompt_head_ids
        return cls(bundle.directory, threads=threads, head_ids=head_ids, device=device)


class TorchPasses:
    """Forward passes for one or many users, with the KV cache in the device's memory.

    Args:
        of: The architecture.
        weights: The weights, on the device.
        device: The device.
        record: Records a pass: passes are padded to sizes that come again, and replayed. None
            computes each as it is.
    """

    def __init__(
        self,
        of: Architecture,
        weights: DecoderWeights,
        device: torch.device,
        record: Record | None = None,
    ) -> None:
        self._device = device
        self._decoder = TorchDecoder(of, weights)
        self._replayed = ReplayedPasses(self._compute, record) if record else None
        self._block = CacheBlock(of, device, self._forget)
        self._spare = DeviceCache(self._block)
        """What padding users write goes here."""

    def empty_cache(self) -> DeviceCache:
        """See `Passes.empty_cache`."""
        return DeviceCache(self._block)

    def start(self, parts: Sequence[UserPass]) -> Callable[[], list[LogProbs]]:
        """See `JoinablePasses.start`. A CPU computes when it is waited for.

        Raises:
            DeviceLostError: The device computes no more; the returned function also raises it.
        """
        answer = None
        if self._device.type != "cpu":
            with _device_faults(self._device):
                answer = self._start(parts)

        def wait() -> list[LogProbs]:
            with _device_faults(self._device):
                return (answer or self._start(parts)).read()

        return wait

    @torch.inference_mode()
    def _start(self, parts: Sequence[UserPass]) -> _Answer:
        passes, slots = [part.tree_pass for part in parts], [part.cache.slot for part in parts]
        sizes = PassSizes.of(passes)
        if self._replayed is not None:
            sizes = sizes.rounded_up()
        self._block.make_room(sizes.longest)
        flat = torch.from_numpy(join_passes(passes, slots, sizes, self._spare.slot))
        given = flat.to(self._device)
        if self._replayed is not None:
            log_probs = self._replayed.run(sizes, given)
        else:
            log_probs = self._compute(sizes, given, neighbours(slots))
        for part in parts:
            if part.keep:
                part.cache.keep(len(part.tree_pass.token_ids))
        return _Answer.of(log_probs, [len(each.pair_tokens) for each in passes])

    def _compute(
        self, sizes: PassSizes, flat: torch.Tensor, read: slice | None = None
    ) -> torch.Tensor:
        """Return the log-probabilities, float32 [pairs], without waiting for the device.

        Args:
            sizes: Of the pass.
            flat: From `join_passes`, on the device.
            read: See `PassCache`.
        """
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
        return self._decoder.log_probs(wanted, given.pair_rows, given.pair_tokens)

    def _forget(self) -> None:
        if self._replayed is not None:
            self._replayed.forget()


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
    """Turn a fault of the device into a `DeviceLostError`."""
    try:
        yield
    except torch.AcceleratorError as error:
        raise DeviceLostError(f"device {device}: {_first_line(error)}") from error


def _usable_device(name: str) -> torch.device:
    """Return a device that has computed something.

    Raises:
        EnvironmentProblemError: It cannot.
    """
    advice = "install a torch built for CUDA and NVIDIA's driver, or use --device cpu"
    if name not in DEVICES:
        raise EnvironmentProblemError(f"device {name}: expected {' or '.join(DEVICES)}")
    if name != "cpu" and not torch.cuda.is_available():
        raise EnvironmentProblemError(
            f"device {name}: torch {torch.__version__} finds no GPU that it can use; {advice}"
        )
    device = torch.device(name)
    try:
        torch.ones(1, device=device).sum().item()
    except (
        RuntimeError,
        AssertionError,
    ) as error:  # another driver, another type of GPU, no memory
        raise EnvironmentProblemError(f"device {name}: {_first_line(error)}; {advice}") from error
    return device


def _first_line(error: Exception) -> str:
    return str(error).split("\n", maxsplit=1)[0]
