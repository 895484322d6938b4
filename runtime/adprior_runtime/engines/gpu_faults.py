"""Known failures of GPU tools and servers, each with one line that says what to do.

The patterns are messages of TensorRT-LLM, TensorRT, Triton and the driver;
`tests/support/gpu_outputs` records the source of each. Nothing here needs a GPU.
"""

from __future__ import annotations

import re
from typing import Final

from adprior_runtime.engines.registry import GPU_IMAGE

_QUOTED: Final = 160

_SAME_IMAGE: Final = (
    f"build and serve it with the same image, {GPU_IMAGE}, and on the same type of GPU"
)

_FAULTS: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), remedy)
    for pattern, remedy in (
        (
            r"couldn't communicate with the NVIDIA driver|Failed to initialize NVML"
            r"|NVIDIA driver was not detected|libcuda\.so\.1: cannot open shared object"
            r"|no CUDA-capable device|Found no NVIDIA driver",
            "no NVIDIA driver or GPU is visible; start the container with --gpus all (compose: "
            "the nvidia device reservation), and see that nvidia-smi works on the host",
        ),
        (
            r"CUDA driver version is insufficient|forward compatibility was attempted"
            r"|unsupported display driver / cuda driver combination",
            f"the host's NVIDIA driver is too old for {GPU_IMAGE}; install the driver that its "
            "release notes ask for",
        ),
        (
            r"out of memory|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|OutOfMemory",
            "the GPU ran out of memory; see that nothing else runs on it (nvidia-smi), else lower "
            "concurrency, beam_width or prompt_tokens in the deployment and build again",
        ),
        (
            r"unable to find backend library for backend 'tensorrtllm'",
            f"this tritonserver has no TensorRT-LLM backend; serve inside {GPU_IMAGE}",
        ),
        (
            r"generated on an incompatible device|incompatible device, expecting compute",
            f"the engine was built for another type of GPU; {_SAME_IMAGE}",
        ),
        (
            r"Serialized Engine Version|not compatible with this version of TensorRT"
            r"|incompatible serialization version|kPLAN_MAGIC_TAG",
            f"the engine was built with another version of TensorRT; {_SAME_IMAGE}",
        ),
        (
            r"No module named 'tensorrt_llm'",
            f"TensorRT-LLM is not installed here; run it inside {GPU_IMAGE}",
        ),
        (
            r"Failed to deserialize cuda engine",
            f"the engine could not be read: damaged, or built with another version; {_SAME_IMAGE}",
        ),
    )
)


def explain_gpu_fault(text: str) -> str | None:
    """Return what to do about the first known fault in ``text``, with the tool's own message.

    A cause is reported before its consequences, whatever their order in the text: a wrong version
    explains why an engine cannot be read.
    """
    for pattern, remedy in _FAULTS:
        if (found := pattern.search(text)) is not None:
            return f"{remedy} (it said: {_clause(text, found)})"
    return None


def _clause(text: str, found: re.Match[str]) -> str:
    """Return a match's line, shortened, without time stamps and stack frames."""
    text = text.replace("\\n", "\n")
    position = text.find(found[0])
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    line = text[start : end if end >= 0 else len(text)]
    line = re.sub(r"^.*?(?:\[TensorRT-LLM\]\[ERROR\]|Internal:|Invalid argument:)\s*", "", line)
    line = " ".join(line.strip(' "').split())
    if len(line) <= _QUOTED:
        return line
    start = max(0, min(line.find(found[0]) - _QUOTED // 2, len(line) - _QUOTED))
    return f"...{line[start : start + _QUOTED]}..."
