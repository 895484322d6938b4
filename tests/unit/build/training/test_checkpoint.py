"""Checkpoints of every supported family: loaded, trained, exported, and forecast with."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from adprior_build.training.starting_point import StartingPoint
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.prompt.context import Event, UserContext
from adprior_runtime.prompt.renderer import PromptRenderer
from integration.brute_force import name_log_probs
from support.random_checkpoint import random_shape, save_random
from support.small_checkpoint import IDS, NAMES, SmallData, build

FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, {"tie_word_embeddings": False}),
    "qwen2": (Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, {"head_dim": 8}),
    "mistral": (MistralConfig, {"head_dim": 4}),
    "gemma": (GemmaConfig, {"head_dim": 8}),
    "gemma2": (Gemma2Config, {"head_dim": 8, "num_hidden_layers": 2}),
    # Published models attend to the last 512 tokens in most layers.
    "gemma3_text": (
        Gemma3TextConfig,
        {
            "head_dim": 8,
            "num_hidden_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 128,
        },
    ),
}
SPREAD: dict[str, Any] = {"initializer_range": 0.4}
"""Makes forecasts far from uniform, so that a wrong one shows."""

DAY = datetime(2024, 5, 1, tzinfo=UTC)
USERS = [
    UserContext(profile={"age": "20s"}, history=(), as_of=DAY),
    UserContext(
        profile={"age": "40s"},
        history=tuple(
            Event(time=DAY.replace(day=1, month=month), action="purchase", advertiser=name)
            for month, name in ((1, "Acme Pets"), (2, "麦穗"), (3, "Acme Pets"))
        ),
        as_of=DAY,
    ),
]


def random_model(name: str, **changed: Any) -> Any:
    """Return a random model of a family; with more layers, the last attends to all tokens."""
    family, settings = FAMILIES[name]
    shape = random_shape(320) | SPREAD | settings | changed
    if "layer_types" in shape:
        others = [shape["layer_types"][0]] * (shape["num_hidden_layers"] - 1)
        shape["layer_types"] = [*others, "full_attention"]
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(family(**shape)).eval()


@pytest.fixture(scope="module", params=FAMILIES)
def start(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family, settings = FAMILIES[request.param]
    directory = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(1)
    save_random(directory, family, **SPREAD, **settings)
    assert json.loads((directory / "config.json").read_text())["model_type"] == request.param
    return directory


def brute_force(checkpoint: Path, context: UserContext) -> dict[int, float]:
    """Return every advertiser's log-probability, by transformers."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="float32").eval()
    renderer = PromptRenderer.load(checkpoint / "prompt.json", checkpoint / "tokenizer.json")
    paths = [renderer.name_ids(name) for name in NAMES]
    scores = name_log_probs(model, renderer.render(context).token_ids, paths)
    return dict(zip(IDS, scores.tolist(), strict=True))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="full"),
        pytest.param(["--lora-rank", "2", "--merge"], id="lora", marks=pytest.mark.long_form),
    ],
)
def test_a_family_trains_builds_and_forecasts_as_transformers_does(
    shared_data: SmallData, start: Path, tmp_path: Path, options: list[str]
) -> None:
    output, bundle = tmp_path / "checkpoint", tmp_path / "bundle"
    assert shared_data.train(output, "--learning-rate", "0.01", *options, start=start) == 0
    before, after = (load_file(place / "model.safetensors") for place in (start, output))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    matrices = {name for name in before if name.endswith("_proj.weight")}
    layers = json.loads((start / "config.json").read_text())["num_hidden_layers"]
    assert len(matrices) == 7 * layers
    assert changed == (matrices if options else set(before))
    saved = ["--checkpoint", str(output), "--save-bundle", str(bundle)]
    assert build(tmp_path / "repository", *saved) == 0
    forecaster = Forecaster(bundle, threads=1)
    for context in USERS:
        truth = brute_force(output, context)
        forecast = forecaster.forecast(context, len(NAMES))
        assert forecast.exact
        assert sorted(forecast.advertiser_ids.tolist()) == IDS
        expected = [truth[advertiser] for advertiser in forecast.advertiser_ids.tolist()]
        np.testing.assert_allclose(forecast.log_probs, expected, atol=1e-3)
        assert max(expected) - min(expected) > 1


def test_lora_is_merged_into_the_weights_that_were_measured(
    shared_data: SmallData, tmp_path: Path
) -> None:
    save_random(tmp_path / "start", LlamaConfig, **SPREAD)
    options = ["--lora-rank", "2", "--merge", "--validation-share", "0.3", "--epochs", "3"]
    output = tmp_path / "out"
    assert (
        shared_data.train(output, *options, "--learning-rate", "0.05", start=tmp_path / "start")
        == 0
    )
    record = json.loads((output / "training.json").read_text())
    losses = [row["validation_loss"] for row in record["losses"]]
    again = ["--validation-share", "0.3", "--learning-rate", "1e-12"]
    assert shared_data.train(tmp_path / "again", *again, start=output) == 0
    (row,) = json.loads((tmp_path / "again" / "training.json").read_text())["losses"]
    assert math.isclose(row["validation_loss"], min(losses), abs_tol=1e-4)
    assert losses[0] > min(losses)


def test_prompts_beyond_the_attention_window_are_refused(
    shared_data: SmallData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_random(tmp_path / "start", MistralConfig, sliding_window=100)
    template = StartingPoint.open(tmp_path / "start").template
    assert template.max_prompt_tokens == 75
    path = tmp_path / "template.json"
    path.write_text(replace(template, max_prompt_tokens=95).to_json(), encoding="utf-8")
    options = ["--template", str(path)]
    assert shared_data.train(tmp_path / "out", *options, start=tmp_path / "start") == 2
    error = capsys.readouterr().err
    assert "do not fit the checkpoint's attention window of 100" in error
    assert error.count("\n") == 1


def test_a_window_that_holds_every_prompt_is_widened(
    shared_data: SmallData, tmp_path: Path
) -> None:
    save_random(tmp_path / "start", MistralConfig, **SPREAD, sliding_window=100)
    assert shared_data.train(tmp_path / "out", start=tmp_path / "start") == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["sliding_window"] == 512
    found = brute_force(tmp_path / "out", USERS[1])
    (tmp_path / "out" / "config.json").write_text(json.dumps(config | {"sliding_window": 100}))
    assert brute_force(tmp_path / "out", USERS[1]) == pytest.approx(found, abs=1e-5)


@pytest.mark.parametrize(
    ("opening", "shown"),
    [([], True), (["<s>"], True), (["<|begin|>", "<s>"], True), (["<{s}>"], False)],
)
def test_prompts_begin_as_the_tokenizer_begins_texts(
    tmp_path: Path, opening: list[str], shown: bool
) -> None:
    """A special token with braces is left out, because no template can contain it."""
    save_random(tmp_path, LlamaConfig, vocab_size=300)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.add_special_tokens(opening)
    pairs = [(token, tokenizer.token_to_id(token)) for token in opening]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*opening, "$A"], special_tokens=pairs
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    start = StartingPoint.open(tmp_path)
    loaded, renderer = start.tokenizer, PromptRenderer(start.template, start.tokenizer)
    ids = renderer.render(UserContext(profile={}, history=(), as_of=DAY)).token_ids
    tokens = [loaded.id_to_token(key) or "" for key in ids]
    assert tokens == (opening if opening and shown else ["<|endoftext|>"])
    assert renderer.name_ids("Acme")[0] not in {key for _, key in pairs}


def test_a_tokenizer_without_added_tokens_begins_with_the_end_token(
    tmp_path: Path,
) -> None:
    save_random(tmp_path, Qwen2Config)
    tokenizer = Tokenizer(models.WordLevel({"<|endoftext|>": 0, "a": 1}, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert StartingPoint.open(tmp_path).template.head == ("{end}",)
