"""Every engine by its name: the files it runs and its loader.

The name is the option ``adprior build --engine``, a manifest's ``engine``, and a prior head's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from adprior_runtime.errors import EnvironmentProblemError

if TYPE_CHECKING:
    from adprior_runtime.bundle import Bundle
    from adprior_runtime.engines.base import Engine


SINGLE_PRECISION: Final = "fp32"
"""Matrix products in single precision."""

BFLOAT16_PARTS: Final = "bf16-parts"
"""Matrix products in parts of bfloat16 (`adprior_runtime.engines.torch_products`)."""


class EngineLoader(Protocol):
    """Makes an engine; its packages are imported only when it is called."""

    def __call__(self, bundle: Bundle, *, threads: int, device: str) -> Engine[Any]:
        """Load a bundle's language model.

        Args:
            bundle: The bundle.
            threads: Threads of one forward pass; 0 takes the processors this process may use.
            device: ``cpu`` or ``cuda``.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKind:
    """One way to run the language model.

    Attributes:
        name: The engine's name, see the module.
        files: Its artefacts. They are in a bundle if ``is_in_bundle``, else beside the bundle in
            the version directory of the model ``llm_engine``.
        is_in_bundle: False for a compiled engine, which runs on one type of GPU only.
        loader: Makes the engine in this process; None for one with a Triton backend of its own.
        joins_users: Whether searches in a `adprior_runtime.engines.pass_loop.PassLoop` share its
            forward passes.
        products: How it can multiply matrices, by the option ``adprior build --products``.
    """

    name: str
    files: tuple[str, ...]
    is_in_bundle: bool
    loader: EngineLoader | None = None
    joins_users: bool = False
    products: tuple[str, ...] = (SINGLE_PRECISION,)


def _load_onnx(bundle: Bundle, *, threads: int, device: str) -> Engine[Any]:
    from adprior_runtime.engines.onnx import OnnxEngine  # noqa: PLC0415  onnxruntime

    return OnnxEngine.of_bundle(bundle, threads=threads, device=device)


def _load_torch(bundle: Bundle, *, threads: int, device: str) -> Engine[Any]:
    try:
        from adprior_runtime.engines.torch_engine import TorchEngine  # noqa: PLC0415  torch
    except ImportError as error:
        raise torch_is_missing(error) from error
    return TorchEngine.of_bundle(bundle, threads=threads, device=device)


def torch_is_missing(error: ImportError) -> EnvironmentProblemError:
    """Return what to raise if a package of the torch engine cannot be imported."""
    if isinstance(error, ModuleNotFoundError):
        text = f"needs the package {error.name}: pip install 'adprior[torch]'"
    else:
        text = f"cannot import its packages: {error}"
    return EnvironmentProblemError(f"engine {TORCH.name} {text}")


ONNX: Final = EngineKind(
    name="onnx",
    files=("model.onnx",),
    is_in_bundle=True,
    loader=_load_onnx,
)
"""Exact trie search on ONNX Runtime (`adprior_runtime.engines.onnx`)."""

TORCH: Final = EngineKind(
    name="torch",
    files=("architecture.json", "model.safetensors"),
    is_in_bundle=True,
    loader=_load_torch,
    joins_users=True,
    products=(SINGLE_PRECISION, BFLOAT16_PARTS),
)
"""Exact trie search on PyTorch, on a CPU or a GPU (`adprior_runtime.engines.torch_engine`)."""

TENSORRT_LLM: Final = EngineKind(
    name="tensorrt-llm",
    files=("rank0.engine", "config.json"),
    is_in_bundle=False,
)
"""Stock beam search of NVIDIA's backend (`adprior_runtime.repository.tensorrt_llm_files`)."""

TENSORRT_LLM_VERSION: Final = "1.2.1"
"""The last release that compiles engines; 1.3 has no ``trtllm-build``."""

GPU_IMAGE: Final = "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"
"""The last image with that release: Python 3.12, TensorRT-LLM backend and Python backend."""

ENGINES: Final = {engine.name: engine for engine in (ONNX, TORCH, TENSORRT_LLM)}


def forecast_alike(first: str, second: str) -> bool:
    """Return whether two engines' forecasts of one model are the same, but for rounding.

    Engines in this process serve the same exact search. A head that was fitted on the forecasts of
    one is right for the others.
    """
    if first == second:
        return True
    kinds = [ENGINES.get(name) for name in (first, second)]
    return all(kind is not None and kind.loader is not None for kind in kinds)
