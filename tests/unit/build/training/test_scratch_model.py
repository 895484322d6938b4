from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adprior_build.training.scratch_model import ModelSize, Names, scratch_model
from adprior_build.training.scratch_tokenizer import END, PAD, scratch_tokenizer
from adprior_runtime.errors import InvalidInputError

SIZE = ModelSize(
    hidden_size=24,
    intermediate_size=40,
    layers=2,
    attention_heads=6,
    key_value_heads=3,
    vocabulary_size=320,
    max_prompt_tokens=50,
)


def write(path: Path, **changed: str) -> Path:
    lines = {key: str(value) for key, value in asdict(SIZE).items()} | changed
    path.write_text("".join(f"{key} = {value}\n" for key, value in lines.items() if value))
    return path


def test_a_size_file_is_read(tmp_path: Path) -> None:
    assert ModelSize.load(write(tmp_path / "size.toml")) == SIZE


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"depth": "3"}, r"unknown depth; expected hidden_size, .*max_prompt_tokens$"),
        ({"layers": ""}, r"size\.toml: layers missing$"),
        ({"layers": "2.0"}, "layers is 2.0, expected a whole number"),
        ({"layers": '"two"'}, "layers is 'two', expected a whole number"),
        ({"layers": "true"}, "layers is True, expected a whole number"),
        ({"layers": "[1]"}, r"layers is \[1\], expected a whole number"),
        ({"layers": "0"}, "layers is 0, expected"),
        ({"max_prompt_tokens": "-5"}, "max_prompt_tokens is -5, expected"),
        ({"attention_heads": "5"}, "must divide hidden_size"),
        ({"key_value_heads": "4"}, "key_value_heads attention_heads"),
        ({"hidden_size": "18"}, "heads of 3 dimensions, expected an even number"),
        ({"layers": "= ="}, "not a size file"),
    ],
)
def test_a_wrong_size_file_is_refused(
    tmp_path: Path, changed: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        ModelSize.load(write(tmp_path / "size.toml", **changed))
    assert "\n" not in str(caught.value)


def test_a_missing_size_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"none\.toml: not a size file"):
        ModelSize.load(tmp_path / "none.toml")


def test_the_model_has_the_given_shape_and_tied_embeddings() -> None:
    model = scratch_model(SIZE, 300, Names(tokens=[5, 6, 7], log_shares=[-1.0, -2.0, -3.0]))
    config = model.config
    assert (config.hidden_size, config.intermediate_size) == (24, 40)
    assert (config.num_hidden_layers, config.vocab_size) == (2, 300)
    assert (config.num_attention_heads, config.num_key_value_heads) == (6, 3)
    assert config.max_position_embeddings >= SIZE.max_prompt_tokens
    tokenizer = scratch_tokenizer(["Acme"], 300)
    assert tokenizer.token_to_id(PAD) == config.pad_token_id == 0
    assert tokenizer.token_to_id(END) == config.eos_token_id == 1
    layer = model.get_decoder().layers[1]
    assert tuple(layer.mlp.up_proj.weight.shape) == (40, 24)
    assert tuple(layer.self_attn.k_proj.weight.shape) == (12, 24)
    assert tuple(model.get_input_embeddings().weight.shape) == (300, 24)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("key_value_heads", [6, 3])
def test_an_untrained_model_forecasts_frequent_and_popular_advertisers(
    key_value_heads: int,
) -> None:
    torch.manual_seed(0)
    size = replace(SIZE, hidden_size=192, layers=2, key_value_heads=key_value_heads)
    tokens = list(range(20, 120))
    shares = np.exp(np.linspace(0, -4, 100))
    model = scratch_model(size, 140, Names(tokens=tokens, log_shares=np.log(shares).tolist()))
    elsewhere = [3, 4, 5, 6]
    history = [70, 1, 3, 90, 1, 4, 70, 1, 5, 70, 1, 90, 1, 100, 1]
    with torch.no_grad():
        known, unknown = (
            model.eval()(input_ids=torch.tensor([ids])).logits[0, -1]
            for ids in ([*elsewhere, *history, 6], elsewhere)
        )
    names = np.array(tokens)
    assert names[known[names].argsort(descending=True)[:2]].tolist() == [70, 90]
    assert np.corrcoef(unknown[names].numpy(), np.log(shares))[0, 1] > 0.5
    assert int(known.argmax()) in tokens


def test_an_untrained_model_ends_a_name_and_prefers_recent_advertisers() -> None:
    torch.manual_seed(0)
    size = replace(SIZE, hidden_size=192, key_value_heads=6, max_prompt_tokens=100)
    tokens = list(range(20, 120))
    model = scratch_model(size, 140, Names(tokens=tokens, log_shares=[-4.6] * 100)).eval()
    history = [2, *[70, 1, 3] * 8, *[90, 1, 3] * 8]
    with torch.no_grad():
        after_gap, after_name = (
            torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, -1], -1)
            for ids in (history, [*history, 90])
        )
    assert after_gap[90] > after_gap[70] > after_gap[[80, 100]].max()
    assert float(after_name[1]) > np.log(0.99)
    assert float(after_gap[1]) < np.log(0.01)
