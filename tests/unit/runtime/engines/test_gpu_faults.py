from __future__ import annotations

import pytest

from adprior_runtime.engines.gpu_faults import explain_gpu_fault
from adprior_runtime.engines.registry import GPU_IMAGE
from adprior_runtime.errors import EnvironmentProblemError
from adprior_runtime.server.log import explain_failure
from support.paths import TOOL_OUTPUTS


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("tritonserver-out-of-memory.log", "the GPU ran out of memory; see that nothing else"),
        ("tritonserver-out-of-memory-escaped.log", "the GPU ran out of memory; see that nothing"),
        ("tritonserver-other-tensorrt.log", "built with another version of TensorRT; build and"),
        ("tritonserver-other-gpu.log", "the engine was built for another type of GPU; build and"),
        ("tritonserver-no-driver.log", "no NVIDIA driver or GPU is visible; start the container"),
        (
            "tritonserver-no-backend.log",
            f"has no TensorRT-LLM backend; serve inside {GPU_IMAGE}",
        ),
    ],
)
def test_a_server_that_failed_on_the_gpu_says_what_to_do(file: str, told: str) -> None:
    found = explain_failure(TOOL_OUTPUTS / file)
    assert type(found) is EnvironmentProblemError
    assert str(found).startswith("model llm_engine: ")
    assert told in str(found)
    assert "\n" not in str(found)
    assert "0x7f" not in str(found)


def test_the_tools_own_message_is_quoted() -> None:
    found = str(explain_failure(TOOL_OUTPUTS / "tritonserver-other-tensorrt.log"))
    assert "Current Version: 226, Serialized Engine Version: 228" in found


def test_a_missing_driver_differs_from_a_missing_gpu_tool() -> None:
    told = explain_gpu_fault((TOOL_OUTPUTS / "nvidia-smi-no-driver.txt").read_text())
    assert told is not None
    assert "start the container with --gpus all" in told


def test_other_faults_are_not_explained() -> None:
    assert explain_gpu_fault("ModuleNotFoundError: No module named 'x'") is None


def test_a_long_line_is_cut() -> None:
    told = explain_gpu_fault(f"CUDA error: out of memory {'x' * 1000}")
    assert told is not None
    assert len(told) < 400
