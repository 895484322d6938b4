"""Writes what LoRA trained as an adapter: its matrices, and which base they correct."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import save_file

from adprior_build.training.record import hash_checkpoint
from adprior_runtime.text.json_text import to_json


def write_adapter(output: Path, adapted: Any, *, base: Path) -> None:
    """Write ``adapter_model.safetensors`` (float16), its configuration, and the base's hash.

    Args:
        output: A directory.
        adapted: The peft model.
        base: The checkpoint that it corrects.
    """
    config = adapted.peft_config["default"]
    matrices = get_peft_model_state_dict(adapted)
    save_file(
        {name: value.to(torch.float16).contiguous() for name, value in matrices.items()},
        output / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "use_rslora": config.use_rslora,
        "target_modules": sorted(config.target_modules),
        "layers_to_transform": config.layers_to_transform,
        "bias": config.bias,
        "base_model_name_or_path": base.name,
    }
    documents = {
        "adapter_config.json": settings,
        "base.json": {"file": base.name, "sha256": hash_checkpoint(base)},
    }
    for name, document in documents.items():
        (output / name).write_text(to_json(document, indent=2) + "\n", encoding="utf-8")
    adapted.config.save_pretrained(output)
