"""Every engine by its name: the files it runs, and the target whose configuration serves it.

The name is the option ``adprior build --engine``, a manifest's ``engine``, and a prior head's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from adprior_runtime.contract import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKind:
    """One way to run the language model.

    Attributes:
        name: The engine's name, see the module.
        files: Its artefacts. They are in a bundle if ``is_in_bundle``, else beside the bundle in
            the version directory of the model ``llm_engine``.
        is_in_bundle: False for a compiled engine, which runs on one type of GPU only.
        target: The kind of machine whose configuration serves it.
    """

    name: str
    files: tuple[str, ...]
    is_in_bundle: bool
    target: Target


ONNX: Final = EngineKind(name="onnx", files=("model.onnx",), is_in_bundle=True, target=Target.CPU)
"""Exact trie search on ONNX Runtime (`adprior_runtime.engines.onnx`)."""

TENSORRT_LLM: Final = EngineKind(
    name="tensorrt-llm",
    files=("rank0.engine", "config.json"),
    is_in_bundle=False,
    target=Target.GPU,
)
"""Stock beam search of NVIDIA's backend (`adprior_runtime.repository.tensorrt_llm_files`)."""

TENSORRT_LLM_VERSION: Final = "1.2.1"
"""The last release that compiles engines; 1.3 has no ``trtllm-build``."""

GPU_IMAGE: Final = "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"
"""The last image with that release: Python 3.12, TensorRT-LLM backend and Python backend."""

ENGINES: Final = {engine.name: engine for engine in (ONNX, TENSORRT_LLM)}
