"""Chooses the precision of a training's matrix products."""

from __future__ import annotations

from typing import Final

import torch

_BF16_INSTRUCTIONS: Final = ("avx512_bf16", "amx_bf16")


def choose_precision(wanted: str, device: str) -> str:
    """Return ``fp32`` or ``bf16``; for ``auto``, what the device computes fastest, and say it.

    Args:
        wanted: ``auto``, ``fp32`` or ``bf16``.
        device: ``cpu`` or ``cuda``.
    """
    if wanted != "auto":
        return wanted
    if device == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        processor = torch.cpu.get_capabilities()
        has_bf16 = any(processor.get(name, False) for name in _BF16_INSTRUCTIONS)
    chosen = "bf16" if has_bf16 else "fp32"
    reason = "has" if has_bf16 else "has no"
    print(f"adprior train: precision {chosen}: the {device} {reason} bf16 instructions", flush=True)
    return chosen
