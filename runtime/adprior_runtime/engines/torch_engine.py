"""The torch engine: packed tree attention in PyTorch, on a CPU or a GPU.

Weights and KV cache stay on the device. A pass sends token ids, positions and a mask, and gets back
the log-probabilities that it asked for. Everything is computed in single precision, whatever the
type that the weights are stored in: the certificate needs it (`adprior_runtime.search.rounding`,
docs/notebook.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import torch

from adprior_runtime.bundle import ARCHITECTURE_FILE, TORCH_WEIGHTS_FILE, Bundle
from adprior_runtime.cpu_count import threads_of_each
from adprior_runtime.engines.architecture import Architecture
from adprior_runtime.engines.base import LogProbs
from adprior_runtime.engines.packed_tree import PackedTreeEngine, TreePass
from adprior_runtime.engines.torch_cache import DeviceCache
from adprior_runtime.engines.torch_decoder import PassTensors, TorchDecoder
from adprior_runtime.engines.torch_weights import DecoderWeights
from adprior_runtime.errors import EnvironmentProblemError

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
            weights = DecoderWeights.load(directory / TORCH_WEIGHTS_FILE, of, self.device)
            super().__init__(
                TorchPasses(of, weights, self.device),
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
    """Forward passes with the KV cache in the device's memory.

    Args:
        of: The architecture.
        weights: The weights, on the device.
        device: The device.
    """

    def __init__(self, of: Architecture, weights: DecoderWeights, device: torch.device) -> None:
        self._of, self._device = of, device
        self._decoder = TorchDecoder(of, weights)

    def empty_cache(self) -> DeviceCache:
        """See `Passes.empty_cache`."""
        return DeviceCache(self._of, self._device)

    @torch.inference_mode()
    def run(self, cache: DeviceCache, tree_pass: TreePass, *, keep: bool) -> LogProbs:
        """See `Passes.run`."""
        given = PassTensors(
            token_ids=self._send(tree_pass.token_ids)[None],
            positions=self._send(tree_pass.new_positions)[None],
            key_positions=self._send(tree_pass.positions)[None],
            visible=self._send(tree_pass.mask == 0)[None],
        )
        stream = self._decoder.run(cache, given)
        log_probs = self._decoder.log_probs(
            stream[0, self._send(tree_pass.wanted)],
            self._send(tree_pass.pair_rows),
            self._send(tree_pass.pair_tokens),
        )
        if keep:
            cache.keep(len(tree_pass.token_ids))
        found: LogProbs = log_probs.cpu().numpy()
        return found

    def _send(self, values: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)


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
