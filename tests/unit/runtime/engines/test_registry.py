from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adprior_runtime.bundle import Bundle
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.engines.registry import ENGINES, TENSORRT_LLM, EngineKind
from adprior_runtime.errors import ArtefactError, EnvironmentProblemError
from adprior_runtime.forecast.search_step import SearchStep


def _open_for(engine: str, directory: Path) -> Bundle:
    bundle = Bundle.open(directory)
    return replace(bundle, manifest=replace(bundle.manifest, engine=engine))


def test_an_entry_of_the_registry_is_all_that_a_search_needs(
    monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path
) -> None:
    calls: list[str] = []

    class Other(OnnxEngine):
        def prefill(self, *arguments: Any) -> Any:
            calls.append("prefill")
            return super().prefill(*arguments)

    other = EngineKind(
        name="other",
        files=("model.onnx",),
        is_in_bundle=True,
        loader=Other.of_bundle,
    )
    monkeypatch.setitem(ENGINES, "other", other)
    bundle = _open_for("other", tiny_bundle)
    search = SearchStep(bundle, threads=1)
    calls.clear()
    prompt_ids = [*bundle.manifest.prompt_head_ids, 7]
    found = search.run(prompt_ids, top_k=3)
    assert calls == ["prefill"]
    expected = SearchStep(_open_for("onnx", tiny_bundle), threads=1).run(prompt_ids, top_k=3)
    assert (found.beams.log_probs == expected.beams.log_probs).all()


def test_an_engine_with_its_own_backend_does_not_run_in_this_process(tiny_bundle: Path) -> None:
    with pytest.raises(ArtefactError, match="for engine tensorrt-llm, which runs in tritonserver"):
        SearchStep(_open_for(TENSORRT_LLM.name, tiny_bundle))


@pytest.mark.parametrize("device", ["cuda", "abacus"])
def test_onnx_runtime_is_for_the_cpu_only(tiny_bundle: Path, device: str) -> None:
    message = f"^device {device}: the engine onnx runs on the CPU; build .* --engine torch"
    with pytest.raises(EnvironmentProblemError, match=message):
        SearchStep(Bundle.open(tiny_bundle), device=device)


def test_the_registry_imports_no_engine() -> None:
    code = (
        "import sys, adprior_runtime.engines.registry; "
        "print(bool({'onnxruntime', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
