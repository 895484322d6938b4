from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adprior_build.tensorrt_llm.tool_inputs import older_config, write_calibration, write_checkpoint
from adprior_runtime.errors import InvalidInputError
from support.random_checkpoint import save_qwen, save_random

# transformers 4 knows rope_theta and rope_scaling, and takes its default where they are absent.
LLAMA_3_SCALING = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


@pytest.mark.parametrize(
    ("config", "older"),
    [
        (
            {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}, "dtype": "bfloat16"},
            {"rope_theta": 1e6, "rope_scaling": None, "torch_dtype": "bfloat16"},
        ),
        (
            {"rope_parameters": {"rope_theta": 5e5, **LLAMA_3_SCALING}},
            {"rope_theta": 5e5, "rope_scaling": LLAMA_3_SCALING},
        ),
        (
            {
                "_sliding_window_pattern": 6,
                "hidden_activation": "gelu_pytorch_tanh",
                "rope_parameters": {
                    "full_attention": {"rope_theta": 1e6, "rope_type": "default"},
                    "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
                },
            },
            {
                "_sliding_window_pattern": 6,
                "sliding_window_pattern": 6,
                "hidden_activation": "gelu_pytorch_tanh",
                "hidden_act": "gelu_pytorch_tanh",
                "rope_theta": 1e6,
                "rope_scaling": None,
                "rope_local_base_freq": 1e4,
            },
        ),
        (
            {"rope_theta": 5e5, "rope_scaling": None, "torch_dtype": "bfloat16"},
            {"rope_theta": 5e5, "rope_scaling": None, "torch_dtype": "bfloat16"},
        ),
    ],
    ids=["plain", "scaled", "gemma-3", "older-already"],
)
def test_a_configuration_is_rewritten_in_the_older_layout(
    config: dict[str, Any], older: dict[str, Any]
) -> None:
    assert older_config(config) == older


def test_scaled_positions_of_a_windowed_layer_are_refused() -> None:
    scaled = {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}
    full = {"rope_theta": 1e6, "rope_type": "default"}
    with pytest.raises(InvalidInputError, match="scaled rotary positions in a layer with a window"):
        older_config({"rope_parameters": {"full_attention": full, "sliding_attention": scaled}})


@pytest.mark.parametrize(
    "rotary",
    [
        [],
        "default",
        {},
        {"rope_type": "default"},
        {"rope_theta": None},
        {"rope_theta": 0},
        {"full_attention": {"rope_theta": 1e6}},
        {"full_attention": [], "sliding_attention": {"rope_theta": 1e4}},
    ],
)
def test_malformed_rotary_parameters_are_refused(rotary: object) -> None:
    with pytest.raises(InvalidInputError, match="expected an object with rope_theta"):
        older_config({"rope_parameters": rotary})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    directory = tmp_path / "checkpoint"
    save_qwen(directory)
    template = {"terminator": "<|endoftext|>", "max_prompt_tokens": 64, "tail": ["advertiser: "]}
    template["profile"] = ["{key}: {value}\n"]
    (directory / "prompt.json").write_text(json.dumps(template))
    return directory


def test_only_data_files_are_copied(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "modeling.py").write_text("raise SystemExit('ran')")
    (checkpoint / "pytorch_model.bin").write_bytes(b"a pickle")
    write_checkpoint(checkpoint, tmp_path / "staged", needs_weights=True)
    assert {path.name for path in (tmp_path / "staged").iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((tmp_path / "staged" / "config.json").read_text())
    assert "rope_parameters" not in config
    assert config["rope_theta"] == 10000.0
    written = json.loads((tmp_path / "staged" / "tokenizer_config.json").read_text())
    assert written["pad_token"] == "<|endoftext|>"


def test_the_written_checkpoint_is_the_same_model(checkpoint: Path, tmp_path: Path) -> None:
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    write_checkpoint(checkpoint, tmp_path / "staged", needs_weights=True)
    ids = AutoTokenizer.from_pretrained(tmp_path / "staged")("Acme Pets", return_tensors="pt")
    answers = [
        AutoModelForCausalLM.from_pretrained(path)(**ids).logits
        for path in (checkpoint, tmp_path / "staged")
    ]
    assert torch.equal(*answers)


OLDER = """
import sys
sys.path.insert(0, sys.argv[1])
import torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
assert transformers.__version__.startswith("4.57."), transformers.__version__
ids = torch.arange(1, 60)[None]
wanted = torch.load(sys.argv[2] + "/logits.pt")
with torch.no_grad():
    found = AutoModelForCausalLM.from_pretrained(sys.argv[2] + "/staged").eval()(ids).logits
AutoTokenizer.from_pretrained(sys.argv[2] + "/staged")
print(float((found - wanted).abs().max()))
"""
ROTARY = {"rope_theta": 5e5, "rope_type": "default"}
LAYERS = {
    "full_attention": ROTARY,
    "sliding_attention": {"rope_theta": 5e3, "rope_type": "default"},
}


@pytest.mark.skipif("ADPRIOR_TRANSFORMERS_4" not in os.environ, reason="needs transformers 4.57")
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("LlamaConfig", {"rope_parameters": ROTARY}),
        ("LlamaConfig", {"rope_parameters": {"rope_theta": 5e5, **LLAMA_3_SCALING}}),
        ("MistralConfig", {"rope_parameters": ROTARY, "sliding_window": 512}),
        ("Qwen2Config", {"rope_parameters": ROTARY}),
        ("Qwen3Config", {"rope_parameters": ROTARY, "head_dim": 8}),
        ("GemmaConfig", {"rope_parameters": ROTARY, "head_dim": 8}),
        ("Gemma2Config", {"rope_parameters": ROTARY, "head_dim": 8}),
        ("Gemma3TextConfig", {"rope_parameters": LAYERS, "head_dim": 8, "num_hidden_layers": 7}),
    ],
)
def test_transformers_4_reads_the_same_model(
    tmp_path: Path, family: str, settings: dict[str, Any]
) -> None:
    """With the image's transformers in a directory of its own, named by the variable.

    ``pip install --target DIR --no-deps transformers==4.57.3 tokenizers==0.22.1
    huggingface-hub==0.36.0`` and ``pip install --target DIR requests`` make one.
    """
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    torch.manual_seed(0)
    settings = {"hidden_size": 16, "initializer_range": 0.5, **settings}
    save_random(tmp_path / "newer", getattr(transformers, family), **settings)
    template = {"terminator": "<|endoftext|>", "max_prompt_tokens": 64}
    (tmp_path / "newer" / "prompt.json").write_text(json.dumps(template))
    write_checkpoint(tmp_path / "newer", tmp_path / "staged", needs_weights=True)
    with torch.no_grad():
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "newer").eval()
        torch.save(model(torch.arange(1, 60)[None]).logits, tmp_path / "logits.pt")
    command = [sys.executable, "-I", "-c", OLDER, os.environ["ADPRIOR_TRANSFORMERS_4"]]
    done = subprocess.run([*command, str(tmp_path)], check=True, capture_output=True, text=True)
    # Gemma 2 computes its soft caps in another order; a wrong frequency costs 1 to 11.
    assert float(done.stdout.split()[-1]) < (0.02 if family == "Gemma2Config" else 1e-5)


def test_a_checkpoint_without_safetensors_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "model.bin")
    with pytest.raises(InvalidInputError, match="pickled weights are not read"):
        write_checkpoint(checkpoint, tmp_path / "staged", needs_weights=True)
    write_checkpoint(checkpoint, tmp_path / "staged", needs_weights=False)


def test_an_adapter_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "base.json").write_text("{}")
    with pytest.raises(InvalidInputError, match=r"an adapter; .*: train with --merge"):
        write_checkpoint(checkpoint, tmp_path / "place", needs_weights=True)


def users(path: Path, count: int) -> Path:
    contexts: list[dict[str, Any]] = [
        {"as_of": "2024-02-01", "profile": {"age": f"{number}0s"}, "history": []}
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(context) + "\n\n" for context in contexts))
    return path


def test_calibration_prompts_are_the_users_prompts(checkpoint: Path, tmp_path: Path) -> None:
    count = write_calibration(users(tmp_path / "users", 40), checkpoint, tmp_path / "calibration")
    lines = (tmp_path / "calibration" / "train.jsonl").read_text().splitlines()
    assert count == len(lines) == 40
    assert json.loads(lines[3]) == {"text": "age: 30s\nadvertiser: "}


def test_too_few_or_malformed_users_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="31 users, expected at least 32"):
        write_calibration(users(tmp_path / "few", 31), checkpoint, tmp_path / "calibration")
    (tmp_path / "bad").write_text('{"history": 3}\n')
    with pytest.raises(InvalidInputError, match="bad, line 1: "):
        write_calibration(tmp_path / "bad", checkpoint, tmp_path / "calibration")
    with pytest.raises(InvalidInputError, match="gone: No such file"):
        write_calibration(tmp_path / "gone", checkpoint, tmp_path / "calibration")
