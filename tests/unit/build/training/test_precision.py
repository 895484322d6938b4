from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adprior_build.training.precision import choose_precision


@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_a_precision_that_was_asked_for_is_taken(wanted: str) -> None:
    assert choose_precision(wanted, "cpu") == wanted


@pytest.mark.parametrize(
    ("instructions", "chosen"),
    [
        ({"avx2": True, "amx_bf16": False}, "fp32"),
        ({}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bf16"),
    ],
)
def test_auto_follows_the_processor(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    instructions: dict[str, bool],
    chosen: str,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert choose_precision("auto", "cpu") == chosen
    assert f"precision {chosen}" in capsys.readouterr().out


def test_auto_finds_this_processors_instructions() -> None:
    flags = Path("/proc/cpuinfo").read_text(encoding="ascii").split()
    has_bf16 = "avx512_bf16" in flags or "amx_bf16" in flags
    assert choose_precision("auto", "cpu") == ("bf16" if has_bf16 else "fp32")
