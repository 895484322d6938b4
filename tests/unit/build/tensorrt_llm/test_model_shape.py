from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adprior_build.tensorrt_llm.model_shape import FAMILIES, ModelShape
from adprior_runtime.errors import InvalidInputError
from support.gpu_golden import MODELS


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
        ("gemma-3-270m", True, 268_098_176),
    ],
)
def test_the_number_of_parameters_is_the_published_one(
    model: str, tied: bool, published: int
) -> None:
    assert parameters_of(ModelShape.read(MODELS / model), tied=tied) == published


@pytest.mark.parametrize("architecture", FAMILIES)
def test_the_number_of_parameters_is_that_of_transformers(architecture: str) -> None:
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
    ("changes", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "'GPT2LMHeadModel', expected one of LlamaFor"),
        ({"architectures": None}, "architecture None, expected one of"),
        ({"auto_map": {"AutoConfig": "code.Config"}}, "has auto_map, code to run"),
        ({"quantization_config": {"quant_method": "awq"}}, "already quantised"),
        ({"architectures": 5}, "architecture 5, expected one of"),
        ({"architectures": {"a": 1}}, "architecture {'a': 1}, expected one of"),
        ({"architectures": [["x"]]}, r"architecture \['x'\], expected one of"),
        ({"hidden_size": None}, "hidden_size is None, expected a whole number of at least 1"),
        ({"hidden_size": 0}, "hidden_size is 0, expected a whole number of at least 1"),
        ({"hidden_size": 31}, "hidden_size 31 is below num_attention_heads 32"),
        ({"num_hidden_layers": -3}, "num_hidden_layers is -3, expected a whole number"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0, expected a whole number"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0, expected a whole number"),
        ({"head_dim": -1}, "head_dim is -1, expected a whole number"),
        ({"vocab_size": "many"}, "vocab_size is 'many', expected a whole number"),
        ({"sliding_window": 0}, "sliding_window is 0, expected a whole number"),
        ({"max_position_embeddings": float("inf")}, "max_position_embeddings is inf, expected"),
        ({"dtype": "int8"}, "dtype is 'int8', expected one of float32"),
        ({"dtype": ["float32"]}, r"dtype is \['float32'\], expected one of float32"),
    ],
)
def test_an_unsupported_checkpoint_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ModelShape.read(write(tmp_path, **changes))


@pytest.mark.parametrize("text", [None, "[]", "3", "[" * 100_000, '{"a":' * 100_000, "9" * 10_000])
def test_a_malformed_or_missing_configuration_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidInputError, match="not a checkpoint's configuration"):
        ModelShape.read(tmp_path)


PLAIN = {"rope_theta": 1e6, "rope_type": "default"}
LINEAR = {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0}
GEMMAS = [name for name in FAMILIES if name.startswith("Gemma")]


@pytest.mark.parametrize("architecture", GEMMAS)
@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": {"type": "linear", "factor": 8.0}, "rope_parameters": None},
        {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_parameters": None},
        {"rope_parameters": LINEAR},
        {"rope_parameters": {"full_attention": LINEAR, "sliding_attention": PLAIN}},
        {"rope_parameters": {"full_attention": PLAIN, "sliding_attention": LINEAR}},
    ],
    ids=["older", "older, rope_type", "newer", "full attention", "windowed attention"],
)
def test_scaled_rotary_positions_of_a_gemma_are_refused_in_one_line(
    tmp_path: Path, architecture: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(
        InvalidInputError, match=r"scaled \('linear'\), which Tens.* onnx"
    ) as caught:
        ModelShape.read(write(tmp_path, architectures=[architecture], **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_plain_rotary_positions_are_accepted_and_others_keep_scaled_ones(
    tmp_path: Path, architecture: str
) -> None:
    each = {"full_attention": PLAIN, "sliding_attention": PLAIN}
    for plain in ({"rope_parameters": PLAIN}, {"rope_parameters": each}, {"rope_scaling": None}):
        ModelShape.read(write(tmp_path, architectures=[architecture], **plain))
    if architecture not in GEMMAS:
        ModelShape.read(write(tmp_path, architectures=[architecture], rope_parameters=LINEAR))


@pytest.mark.parametrize("architecture", FAMILIES)
def test_float16_is_refused_where_activations_overflow_it(
    tmp_path: Path, architecture: str
) -> None:
    shape = ModelShape.read(write(tmp_path, architectures=[architecture], rope_parameters=PLAIN))
    shape.check_dtype("bfloat16")
    if architecture != "Gemma3ForCausalLM":
        shape.check_dtype("float16")
        return
    with pytest.raises(InvalidInputError, match=r"dtype is float16, which .* expected bfloat16$"):
        shape.check_dtype("float16")


def test_a_window_that_is_switched_off_is_ignored(tmp_path: Path) -> None:
    assert ModelShape.read(write(tmp_path, sliding_window=512)).window == 512
    unused = write(tmp_path, sliding_window=512, use_sliding_window=False)
    assert ModelShape.read(unused).window is None
