"""The torch engine: packed tree attention in PyTorch, on a CPU or a GPU.

Weights and KV cache stay on the device. A pass sends token ids, positions and what each token sees,
and gets back the log-probabilities that it asked for. Searches in a
`adprior_runtime.engines.pass_loop.PassLoop` share passes. Everything is computed in single
precision, whatever the type that the weights are stored in: the certificate needs it
(`adprior_runtime.search.rounding`, docs/notebook.md). Products with the weights may be computed in
parts of bfloat16 instead (`adprior_runtime.engines.torch_products`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import torch

from adprior_runtime.bundle import ARCHITECTURE_FILE, TORCH_WEIGHTS_FILE, Bundle
from adprior_runtime.cpu_count import threads_of_each
from adprior_runtime.engines.architecture import Architecture
from adprior_runtime.engines.pass_loop import SharedPasses
from adprior_runtime.engines.registry import BFLOAT16_PARTS, SINGLE_PRECISION
from adprior_runtime.engines.torch_graphs import GpuRecorder
from adprior_runtime.engines.torch_passes import TorchPasses, first_line
from adprior_runtime.engines.torch_weights import DecoderWeights
from adprior_runtime.engines.working_ahead import WorkingAheadEngine
from adprior_runtime.errors import EnvironmentProblemError

DEVICES: Final = ("cpu", "cuda")


class TorchEngine(WorkingAheadEngine):
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
        products: str = SINGLE_PRECISION,
        works_ahead: bool | None = None,
    ) -> None:
        """Load the model.

        Args:
            directory: Where the architecture and the weights are.
            threads: Threads of one forward pass on the CPU; 0 takes the processors this process may
                use. torch has one number for the whole process, and one precision of products.
            head_ids: Tokens that all prompts begin with; the model reads them once, here.
            device: ``cpu`` or ``cuda``.
            products: How matrices are multiplied, one of `registry.TORCH`'s.
            works_ahead: Whether it takes a search's first step before the search asks for it; None
                does so on a device that the host need not wait for: not on the CPU.

        Raises:
            ArtefactError: The files are not such a model.
            EnvironmentProblemError: torch cannot use the device here, or its memory is too small.
        """
        self.device = _usable_device(device)
        if products == BFLOAT16_PARTS:
            _require_bfloat16(self.device)
        of = Architecture.load(directory / ARCHITECTURE_FILE)
        if device == "cpu":
            torch.set_num_threads(threads_of_each(1, threads))
        # TF32 rounds factors to 11 bits: 8,192 times what the certificate allows.
        torch.set_float32_matmul_precision("highest")
        # Products of bfloat16 must not be summed in bfloat16, where a kernel sums in several parts.
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        try:
            make_record = GpuRecorder if device == "cuda" else None
            path = directory / TORCH_WEIGHTS_FILE
            weights = DecoderWeights.load(path, of, self.device, products)
            super().__init__(
                SharedPasses(TorchPasses(of, weights, self.device, make_record)),
                vocabulary=of.vocabulary,
                max_positions=of.max_positions,
                head_ids=head_ids,
                works_ahead=device != "cpu" if works_ahead is None else works_ahead,
            )
        except RuntimeError as error:  # too little memory, on either device, among others
            raise EnvironmentProblemError(f"device {device}: {first_line(error)}") from error

    @classmethod
    def of_bundle(cls, bundle: Bundle, *, threads: int = 0, device: str = "cpu") -> Self:
        """Load a bundle's model.

        Raises:
            ArtefactError, EnvironmentProblemError: As the constructor. Also if a GPU is to compute
                in parts, and the bundle's error was not measured on one.
        """
        for name in (ARCHITECTURE_FILE, TORCH_WEIGHTS_FILE):
            bundle.path(name)
        manifest = bundle.manifest
        if manifest.products == BFLOAT16_PARTS and device not in {"cpu", manifest.error_device}:
            raise EnvironmentProblemError(
                f"device {device}: the bundle's products {manifest.products} were checked on "
                f"{manifest.error_device}, and a GPU's tensor cores sum less exactly: build it "
                f"with --device {device}"
            )
        return cls(
            bundle.directory,
            threads=threads,
            head_ids=manifest.prompt_head_ids,
            device=device,
            products=manifest.products,
        )


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
        raise EnvironmentProblemError(f"device {name}: {first_line(error)}; {advice}") from error
    return device


def _require_bfloat16(device: torch.device) -> None:
    """Raise EnvironmentProblemError for a GPU whose tensor cores do not multiply bfloat16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise EnvironmentProblemError(
            f"device {device}: {torch.cuda.get_device_name(device)} has no products of bfloat16; "
            f"build the bundle with --products {SINGLE_PRECISION}"
        )
