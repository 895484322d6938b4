from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adprior_build.tensorrt_llm.model_shape import FAMILIES, ModelShape
from adprior_runtime.errors import InvalidInputError
from unit.gpu_golden import MODELS


def parameters_of(shape: ModelShape, *, tied: bool) -> int:
    twice = shape.vocabulary * shape.hidden
    return shape.layer_weights + shape.other_weights - (twice if tied else 0)


def write(directory: Path, **changes: Any) -> Path:
    config = json.loads((MODELS / "llama-3-8b" / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | changes))
    return directory


@pytest.mark.parametrize(
    ("model", "tied", "published"),
    [
        ("qwen3-0.6b", True, 596_049_920),
        ("qwen3-1.7b", True, 1_720_574_976),
        ("llama-3-8b", False, 8_030_261_248),
    ],
)
def test_parameters_are_those_of_the_published_models(
    model: str, tied: bool, published: int
) -> None:
    assert parameters_of(ModelShape.read(MODELS / model), tied=tied) == published


@pytest.mark.parametrize("architecture", FAMILIES)
def test_parameters_are_those_that_transformers_makes(architecture: str) -> None:
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 100,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    name = architecture.removesuffix("ForCausalLM")
    kind = getattr(transformers, f"{name}TextConfig" if name == "Gemma3" else f"{name}Config")
    with torch.device("meta"):
        model = getattr(transformers, architecture)(kind(**sizes))
    shape = ModelShape._of(model.config.to_dict() | {"architectures": [architecture]})
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert parameters_of(shape, tied=True) == expected


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "'GPT2LMHeadModel', expected one of LlamaFor"),
        ({"architectures": None}, "architecture None, expected one of"),
        ({"auto_map": {"AutoConfig": "code.Config"}}, "has auto_map, code to run"),
        ({"quantization_config": {"quant_method": "awq"}}, "already quantised"),
        ({"hidden_size": None}, "not a language model's"),
        ({"dtype": "int8"}, "not a language model's"),
    ],
)
def test_other_checkpoints_are_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        ModelShape.read(write(tmp_path, **changes))


def test_a_directory_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="not a checkpoint's configuration"):
        ModelShape.read(tmp_path)


def test_a_window_counts_only_where_it_is_used(tmp_path: Path) -> None:
    assert ModelShape.read(write(tmp_path, sliding_window=512)).window == 512
    unused = write(tmp_path, sliding_window=512, use_sliding_window=False)
    assert ModelShape.read(unused).window is None
