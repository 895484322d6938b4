"""What ``--from`` and ``--checkpoint`` take: read as transformers does, or refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, Qwen3Config

from adprior_build.checkpoints.checkpoint import (
    describe_base,
    find_source,
    hash_checkpoint,
    open_checkpoint,
)
from adprior_build.checkpoints.tokenizer import load_tokenizer
from adprior_runtime.errors import InvalidInputError
from support.gguf_models import write_gguf
from support.random_checkpoint import save_random
from support.small_models import small_qwen3


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    save_random(tmp_path / "start", LlamaConfig, initializer_range=0.4)
    return tmp_path / "start"


def save_as(directory: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    path = directory / "model.safetensors"
    weights = {name: values.to(dtype) for name, values in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    return weights


def shard(directory: Path) -> None:
    path = directory / "model.safetensors"
    weights = load_file(path)
    names = sorted(weights)
    parts = {"first.safetensors": names[::2], "second.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, directory / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    path.unlink()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_precision_is_read_as_float32(directory: Path, dtype: torch.dtype) -> None:
    expected = save_as(directory, dtype)
    weights = open_checkpoint(directory).weights
    assert set(weights) == set(expected)
    for name, values in expected.items():
        assert weights[name].dtype == np.float32
        np.testing.assert_array_equal(weights[name], values.float().numpy())


def test_shards_are_read_as_one(directory: Path) -> None:
    before = {name: values.copy() for name, values in open_checkpoint(directory).weights.items()}
    identity = hash_checkpoint(directory)
    shard(directory)
    after = open_checkpoint(directory).weights
    assert set(after) == set(before)
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)
    assert hash_checkpoint(directory) != identity


@pytest.mark.parametrize("has_copy", [True, False])
def test_tied_embeddings_are_given_once(tmp_path: Path, has_copy: bool) -> None:
    save_random(tmp_path, Qwen3Config, tie_word_embeddings=True)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    if has_copy:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
        save_file(weights, path)
    opened = open_checkpoint(tmp_path)
    assert "lm_head.weight" not in opened.weights
    assert opened.config["tie_word_embeddings"] is True
    assert len(dict(opened.weights)) == len(opened.weights)


def drop(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def reconfigure(**values: Any) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        path = directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def cut(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def lose_a_shard(directory: Path) -> None:
    shard(directory)
    (directory / "second.safetensors").unlink()


def lose_the_index(directory: Path) -> None:
    shard(directory)
    (directory / "model.safetensors.index.json").unlink()


def lose_a_tensor(directory: Path) -> None:
    shard(directory)
    save_file({"other": torch.zeros(1)}, directory / "second.safetensors")


def pickle_it(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def quantise(directory: Path) -> None:
    save_as(directory, torch.int8)


def untie(directory: Path) -> None:
    path = directory / "model.safetensors"
    weights = load_file(path)
    del weights["lm_head.weight"]
    save_file(weights, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("config.json"), r"start: not a Hugging Face checkpoint \(no config\.json\)"),
        (drop("model.safetensors"), "no .safetensors file; pickled weights are not read"),
        (pickle_it, "no .safetensors file; pickled weights are not read"),
        (lose_a_shard, r"index\.json: names the shard 'second\.safetensors', which is not there"),
        (lose_the_index, r"first\.safetensors without model\.safetensors\.index\.json"),
        (lose_a_tensor, r"index\.json: tensor .* is not in its shard second\.safetensors"),
        (cut, r"model\.safetensors: truncated: tensor .* ends at byte \d+, the file at byte"),
        (quantise, r"has the type I8; expected one of F64, F32, F16, BF16"),
        (untie, r"no tensor lm_head\.weight, and tie_word_embeddings is false"),
        (reconfigure(quantization_config={"bits": 4}), r"its weights are quantised"),
        (reconfigure(text_config={}), "a model of several parts"),
        (reconfigure(model_type=None), "names no model_type"),
    ],
)
def test_what_cannot_be_read_is_refused(
    directory: Path, change: Callable[[Path], None], message: str
) -> None:
    change(directory)
    with pytest.raises(InvalidInputError, match=message) as caught:
        open_checkpoint(directory)
    assert "\n" not in str(caught.value)


def test_a_pickled_file_is_no_gguf_file(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "model.pt")
    with pytest.raises(InvalidInputError, match=r"model\.pt: begins with b'PK.*expected b'GGUF'"):
        open_checkpoint(tmp_path / "model.pt")


def test_a_gguf_file_is_a_checkpoint_without_torch(tmp_path: Path) -> None:
    model = small_qwen3()
    write_gguf(tmp_path / "model.gguf", model, "qwen3")
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from pathlib import Path\n"
        "from adprior_build.checkpoints.checkpoint import open_checkpoint\n"
        "print(float(open_checkpoint(Path(sys.argv[1])).weights['model.norm.weight'].sum()))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model.gguf")]
    found = subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert float(found.stdout) == float(model.model.norm.weight.detach().sum())


def test_a_source_is_a_path_or_a_known_package(tmp_path: Path) -> None:
    assert find_source(tmp_path) == tmp_path
    with pytest.raises(InvalidInputError, match=r"no-such: not found; expected .*gemma3-270m"):
        find_source(Path("no-such"))


def test_a_base_is_named_from_the_adapter(directory: Path, tmp_path: Path) -> None:
    base = describe_base(directory, tmp_path / "outputs" / "adapter")
    assert base.file == "../../start"
    assert base.sha256 == hash_checkpoint(directory)
    assert base.package is None


def test_a_missing_tokenizer_is_refused(directory: Path) -> None:
    assert load_tokenizer(directory).get_vocab_size() > 256
    (directory / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidInputError, match=r"tokenizer\.json: not a tokenizer"):
        load_tokenizer(directory)
    (directory / "tokenizer.json").unlink()
    with pytest.raises(InvalidInputError, match=r"no tokenizer\.json"):
        load_tokenizer(directory)
