from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer, normalizers

from adprior_build.checkpoints.checkpoint import hash_checkpoint, open_checkpoint
from adprior_build.data.split import Split
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.prompt.context import parse_context
from adprior_runtime.prompt.template import PromptTemplate
from support.random_checkpoint import END, save_qwen
from support.small_checkpoint import CUT, IDS, NAMES, SmallData, build, invented_events

CHECKPOINT_FILES = {
    "catalogue.parquet",
    "config.json",
    "model.safetensors",
    "popularity.parquet",
    "prompt.json",
    "tokenizer.json",
    "training.json",
}
Refused = Callable[..., str]


@pytest.fixture
def data(tmp_path: Path) -> SmallData:
    (tmp_path / "data").mkdir()
    return SmallData.write(tmp_path / "data")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("qwen")
    save_qwen(directory)
    return directory


@pytest.fixture
def refused(data: SmallData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a training that must be refused; return its one line of error."""

    def run(*options: str, **more: Any) -> str:
        try:
            code = data.train(tmp_path / "out", *options, **more)
        except SystemExit as stop:
            code = int(stop.code or 0)
        error = capsys.readouterr().err
        assert code == 2
        assert error.startswith("adprior train: ")
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()
        return error

    return run


def popularity(checkpoint: Path) -> dict[int, int]:
    table = pa.parquet.read_table(checkpoint / "popularity.parquet")
    return dict(zip(table["advertiser_id"].to_pylist(), table["events"].to_pylist(), strict=True))


def record_of(checkpoint: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((checkpoint / "training.json").read_text())
    return record


SHORT_TEMPLATE = PromptTemplate(
    terminator=END, max_prompt_tokens=40, head=("{end}",), event=("{advertiser}{end}",), tail=(">",)
)


def save_template(path: Path, template: PromptTemplate) -> list[str]:
    """Write a prompt template; return the option that names it."""
    path.write_text(template.to_json(), encoding="utf-8")
    return ["--template", str(path)]


def same_weights(first: Path, second: Path) -> bool:
    return (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def is_in_training(user: str) -> bool:
    held_out = Split(test_share=0.05, salt="validation")
    return not (Split(test_share=0.4).is_test_user(user) or held_out.is_test_user(user))


def test_a_checkpoint_has_everything_that_a_build_needs(
    shared_data: SmallData, checkpoint: Path
) -> None:
    assert {path.name for path in checkpoint.iterdir()} >= CHECKPOINT_FILES
    assert len({path.stat().st_mode for path in checkpoint.iterdir()}) == 1  # all as the umask says
    template = PromptTemplate.load(checkpoint / "prompt.json")
    assert template.max_prompt_tokens == 64
    catalogue = pa.parquet.read_table(checkpoint / "catalogue.parquet")
    assert catalogue.equals(pa.parquet.read_table(shared_data.path("catalogue.parquet")))
    assert popularity(checkpoint).keys() == set(IDS)


def test_the_record_holds_data_settings_split_and_losses(
    shared_data: SmallData, checkpoint: Path
) -> None:
    record = record_of(checkpoint)
    for name in ("events", "profiles", "catalogue"):
        path = shared_data.path(f"{name}.parquet")
        assert record["inputs"][name] == {
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    assert set(record["inputs"]) == {"events", "profiles", "columns", "catalogue"}
    assert record["start"] == "start"
    assert record["settings"]["epochs"] == 1
    assert record["settings"]["seed"] == 3
    assert record["split"]["cut"] == CUT.isoformat()
    assert (record["split"]["test_share"], record["split"]["validation_share"]) == (0.4, 0.2)
    assert record["training_users"] + record["validation_users"] == 10
    assert record["profile_keys"] == ["age"]
    (row,) = record["losses"]
    kinds = {"validation_new", "validation_seen"}
    assert set(row) == {"epoch", "loss", "validation_loss", "tokens"} | kinds
    assert record["best_epoch"] == 0
    assert record["tokens"] == row["tokens"] > 0
    assert record["run"]["resumed"] == 0
    assert record["run"]["seconds"] > 0
    assert record["command"].startswith("adprior train --events events.parquet ")
    assert str(shared_data.directory) not in json.dumps(record)


def test_popularity_counts_the_training_events(data: SmallData, tmp_path: Path) -> None:
    assert data.train(tmp_path / "out") == 0
    expected = dict.fromkeys(IDS, 0)
    for row in invented_events():
        if is_in_training(row["who"]) and row["day"] < CUT:
            expected[IDS[NAMES.index(row["brand"])]] += 1
    assert popularity(tmp_path / "out") == expected
    assert sum(expected.values()) > 0


def test_test_users_and_later_events_do_not_change_the_checkpoint(
    data: SmallData, tmp_path: Path
) -> None:
    assert data.train(tmp_path / "clean") == 0
    unseen = [
        {"who": "user-2", "day": CUT - timedelta(days=20), "brand": "365", "kind": "FOOD"},
        {"who": "user-0", "day": CUT, "brand": "365", "kind": "FOOD"},
        {"who": "user-0", "day": CUT + timedelta(days=900), "brand": "Acme", "kind": None},
    ]
    data.write_events([*invented_events(), *unseen * 20])
    assert Split(test_share=0.4).is_test_user("user-2")
    assert not Split(test_share=0.4).is_test_user("user-0")
    assert data.train(tmp_path / "more") == 0
    assert popularity(tmp_path / "more") == popularity(tmp_path / "clean")
    assert same_weights(tmp_path / "more", tmp_path / "clean")


@pytest.mark.parametrize(
    ("name", "brands", "counted"),
    [
        ("Acme Pets", ["Acme  Pets", " Acme\u00a0Pets", "Elsewhere"], 2),
        ("Nestl\u00e9", ["Nestl\u00e9", "Nestle\u0301", "Ne\u200bstl\u00e9", "\u200b"], 3),
    ],
)
def test_popularity_counts_every_spelling_of_a_name(
    data: SmallData, tmp_path: Path, name: str, brands: list[str], counted: int
) -> None:
    day = CUT - timedelta(days=3)
    data.write_catalogue({"advertiser_id": IDS, "name": ["Moss", name, *NAMES[2:]]})
    data.write_events([{"who": "user-0", "day": day, "brand": b, "kind": ""} for b in brands])
    assert data.train(tmp_path / "out", "--test-share", "0") == 0
    assert popularity(tmp_path / "out") == dict.fromkeys(IDS, 0) | {102: counted}


def test_names_are_compared_by_the_checkpoints_tokens(
    data: SmallData, qwen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = shutil.copytree(qwen, tmp_path / "lower")
    tokenizer = Tokenizer.from_file(str(start / "tokenizer.json"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(start / "tokenizer.json"))
    events = [row | {"brand": row["brand"].upper()} for row in invented_events()]
    data.write_events(events)
    assert data.train(tmp_path / "upper", start=start) == 0
    assert "they name no advertiser" not in capsys.readouterr().out
    data.write_events(invented_events())
    assert data.train(tmp_path / "plain", start=start) == 0
    assert popularity(tmp_path / "upper") == popularity(tmp_path / "plain")
    assert sum(popularity(tmp_path / "upper").values()) > 0
    assert same_weights(tmp_path / "upper", tmp_path / "plain")


def test_a_long_name_is_reported_and_trains(
    data: SmallData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "Acme\u00a0 and " + "x" * 70
    data.write_catalogue({"advertiser_id": IDS, "name": [long, *NAMES[1:]]})
    events = [row | {"brand": long} for row in invented_events() if row["brand"] == "Acme"]
    data.write_events(events)
    assert data.train(tmp_path / "out") == 0
    error = capsys.readouterr().err
    assert "longer than 64 characters: 1;" in error
    assert "max_field_chars of the prompt template" in error
    assert popularity(tmp_path / "out")[101] > 0


def test_names_that_differ_only_beyond_the_limit_are_refused_first(
    data: SmallData, refused: Refused
) -> None:
    data.write_catalogue({"advertiser_id": [1, 2], "name": ["x" * 80 + "a", "x" * 80 + "b"]})
    data.path("events.parquet").unlink()
    message = refused()
    assert "rows 0 and 1 (from 0)" in message
    assert "the same in their first 64 characters" in message
    assert "max_field_chars" in message


def test_the_advertiser_column_may_hold_ids(data: SmallData, tmp_path: Path) -> None:
    rows = [row | {"brand": IDS[NAMES.index(row["brand"])]} for row in invented_events()]
    data.write_events(rows)
    assert data.train(tmp_path / "ids") == 0
    data.write_events(invented_events())
    assert data.train(tmp_path / "names") == 0
    assert popularity(tmp_path / "ids") == popularity(tmp_path / "names")
    assert same_weights(tmp_path / "ids", tmp_path / "names")


def test_the_same_seed_gives_the_same_weights(
    shared_data: SmallData, checkpoint: Path, tmp_path: Path
) -> None:
    options = ("--validation-share", "0.2", "--seed")
    assert shared_data.train(tmp_path / "same", *options, "3") == 0
    assert shared_data.train(tmp_path / "other", *options, "4") == 0
    assert same_weights(tmp_path / "same", checkpoint)
    assert not same_weights(tmp_path / "other", checkpoint)


def test_a_checkpoint_can_be_trained_further(
    shared_data: SmallData, checkpoint: Path, tmp_path: Path
) -> None:
    assert shared_data.train(tmp_path / "out", start=checkpoint) == 0
    for name in ("prompt.json", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == (checkpoint / name).read_bytes()
    assert not same_weights(tmp_path / "out", checkpoint)
    record = record_of(tmp_path / "out")
    assert record["start"] == checkpoint.name
    assert record["start_sha256"] == hash_checkpoint(checkpoint)
    assert "--from checkpoint" in record["command"]
    before, after = (
        load_file(place / "model.safetensors") for place in (checkpoint, tmp_path / "out")
    )
    assert {name: array.shape for name, array in after.items()} == {
        name: array.shape for name, array in before.items()
    }


def test_a_finished_training_is_replaced_only_when_asked(
    shared_data: SmallData, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, place)
    assert shared_data.train(place, start=place) == 2
    error = capsys.readouterr().err
    assert f"{place}: holds a finished training; choose another --output, or give" in error
    assert error.count("\n") == 1
    assert same_weights(place, checkpoint)
    assert shared_data.train(place, "--overwrite", start=place) == 0
    assert not same_weights(place, checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_checkpoint_without_a_template_gets_a_plain_one(
    shared_data: SmallData, qwen: Path, tmp_path: Path
) -> None:
    assert shared_data.train(tmp_path / "out", start=qwen) == 0
    template = PromptTemplate.load(tmp_path / "out" / "prompt.json")
    assert template.terminator == "<|endoftext|>"
    assert template.tail == ("+{gap}\n",)


def test_a_given_template_is_used(shared_data: SmallData, qwen: Path, tmp_path: Path) -> None:
    option = save_template(tmp_path / "template.json", SHORT_TEMPLATE)
    assert shared_data.train(tmp_path / "out", *option, start=qwen) == 0
    assert PromptTemplate.load(tmp_path / "out" / "prompt.json") == SHORT_TEMPLATE
    assert record_of(tmp_path / "out")["inputs"]["template"]["file"] == "template.json"


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("config.json", "not a Hugging Face checkpoint (no config.json)"),
        ("tokenizer.json", "no tokenizer.json"),
        ("model.safetensors", "no .safetensors file; pickled weights are not read"),
    ],
)
def test_an_incomplete_or_corrupt_checkpoint_is_refused(
    refused: Refused, qwen: Path, tmp_path: Path, removed: str, message: str
) -> None:
    start = shutil.copytree(qwen, tmp_path / "start")
    (start / removed).rename(start / "pytorch_model.bin")
    assert f"{start}: {message}" in refused(start=start)
    (start / removed).write_bytes(b"{garbage")
    assert str(start) in refused(start=start)


def test_a_checkpoint_without_an_end_of_text_needs_a_template(
    refused: Refused, qwen: Path, tmp_path: Path
) -> None:
    start = tmp_path / "start"
    shutil.copytree(qwen, start)
    config = json.loads((start / "config.json").read_text())
    (start / "config.json").write_text(json.dumps(config | {"eos_token_id": None}))
    assert "no end-of-text token; give a --template" in refused(start=start)


@pytest.mark.parametrize("name", ["notes.txt", "model.safetensors"])
def test_an_output_that_is_no_checkpoint_is_refused_and_left_alone(
    data: SmallData, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    output = tmp_path / "precious"
    output.mkdir()
    (output / name).write_text("years of work")
    assert data.train(output) == 2
    error = capsys.readouterr().err
    assert f"{output}: exists and is not an earlier output (no training.json)" in error
    assert error.count("\n") == 1
    assert [path.name for path in output.iterdir()] == [name]
    assert (output / name).read_text() == "years of work"


@pytest.mark.parametrize("brand", ["Elsewhere", None, 999])
def test_a_log_without_advertisers_of_the_catalogue_is_refused(
    refused: Refused, data: SmallData, brand: str | int | None
) -> None:
    data.write_events([row | {"brand": brand} for row in invented_events()])
    assert "nothing to train on" in (error := refused())
    assert "no event names an advertiser of the catalogue" in error


def test_a_cut_before_all_events_is_refused(refused: Refused) -> None:
    assert "nothing to train on" in refused("--cut", "2001-01-01")


def test_validation_users_are_not_trained_on(refused: Refused, data: SmallData) -> None:
    data.write_events([row for row in invented_events() if row["who"] == "user-3"])
    assert Split(test_share=0.05, salt="validation").is_test_user("user-3")
    assert "nothing to train on" in refused("--test-share", "0")


IMPOSSIBLE = {
    "--test-share": ["1", "-0.1"],
    "--validation-share": ["1.5", "nan"],
    "--epochs": ["0", "many"],
    "--batch-size": ["0"],
    "--learning-rate": ["0", "inf"],
    "--cut": ["yesterday"],
    "--seed": ["x", "-1"],
    "--threads": ["-1"],
    "--precision": ["fp8"],
    "--device": ["tpu"],
    "--minutes": ["0"],
    "--patience": ["-1"],
    "--dropout": ["1"],
    "--upper-layers": ["0"],
    "--lora-rank": ["0"],
    "--lora-alpha": ["0"],
    "--checkpoint-minutes": ["0"],
}


@pytest.mark.parametrize("option", IMPOSSIBLE)
def test_an_impossible_option_is_refused(refused: Refused, option: str) -> None:
    for value in IMPOSSIBLE[option]:
        assert option in refused(f"{option}={value}")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"terminator": "<|over|>"}, "<|over|>"),
        ({"max_prompt_tokens": 4000}, "max_prompt_tokens 4000"),
    ],
)
def test_a_template_that_does_not_fit_the_model_is_refused(
    refused: Refused, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    template = replace(SHORT_TEMPLATE, **changed)
    assert message in refused(*save_template(tmp_path / "template.json", template))


def test_a_bundle_does_not_depend_on_the_training_time(checkpoint: Path, tmp_path: Path) -> None:
    saved = ["--checkpoint", str(checkpoint), "--save-bundle", str(tmp_path / "bundle")]
    assert build(tmp_path / "repository", *saved) == 0
    record = record_of(checkpoint)
    assert set(record.pop("run")) == {"seconds", "resumed"}
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["training"].pop("checkpoint_sha256") == hash_checkpoint(checkpoint)
    assert manifest["training"] == record


@pytest.mark.parametrize("upper", [None, "1"])
def test_lora_writes_an_adapter_that_gives_what_was_measured(
    shared_data: SmallData, tmp_path: Path, upper: str | None
) -> None:
    options = ["--lora-rank", "2", "--validation-share", "0.3", "--learning-rate", "0.05"]
    options += [] if upper is None else ["--upper-layers", upper]
    assert shared_data.train(tmp_path / "adapter", *options) == 0
    assert shared_data.train(tmp_path / "merged", *options, "--merge") == 0
    adapter = tmp_path / "adapter"
    assert not (adapter / "model.safetensors").exists()
    start, merged, matrices = (
        load_file(path)
        for path in (
            shared_data.path("start") / "model.safetensors",
            tmp_path / "merged" / "model.safetensors",
            adapter / "adapter_model.safetensors",
        )
    )
    changed = {name for name in start if not np.array_equal(start[name], merged[name])}
    assert len(matrices) == 2 * len(changed) == 2 * 7 * (2 if upper is None else 1)
    joined = open_checkpoint(adapter).weights
    for name in start:
        np.testing.assert_allclose(joined[name], merged[name], atol=1e-3)


def test_a_built_adapter_forecasts_as_the_merged_checkpoint(
    shared_data: SmallData, tmp_path: Path
) -> None:
    options = ["--lora-rank", "2", "--trim-vocabulary", "1", "--learning-rate", "0.05"]
    found = []
    for name, more in (("adapter", ()), ("merged", ("--merge",))):
        checkpoint, bundle = tmp_path / name, tmp_path / f"{name}-bundle"
        assert shared_data.train(checkpoint, *options, *more) == 0
        saved = ["--checkpoint", str(checkpoint), "--save-bundle", str(bundle)]
        assert build(tmp_path / f"{name}-repository", *saved) == 0
        context = parse_context(b'{"as_of": "2024-05-01", "profile": {"age": "20s"}}')
        forecast = Forecaster(bundle, threads=1).forecast(context, len(NAMES))
        found.append(dict(zip(forecast.advertiser_ids, forecast.log_probs, strict=True)))
    assert found[0] == pytest.approx(found[1], abs=1e-3)
    assert max(found[0].values()) > min(found[0].values()) + 1


@pytest.mark.parametrize(
    ("option", "more"),
    [
        ("--gradient-checkpointing", ()),
        ("--gradient-checkpointing", ("--lora-rank", "2", "--upper-layers", "1", "--merge")),
        pytest.param(
            "--compile",
            ("--lora-rank", "2", "--merge"),
            marks=[
                pytest.mark.long_form,  # compiling takes half a minute
                pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
            ],
        ),
    ],
)
def test_options_for_memory_and_speed_change_no_weights(
    shared_data: SmallData, tmp_path: Path, option: str, more: tuple[str, ...]
) -> None:
    assert shared_data.train(tmp_path / "plain", *more) == 0
    assert shared_data.train(tmp_path / "other", *more, option) == 0
    plain, other = (
        load_file(tmp_path / place / "model.safetensors") for place in ("plain", "other")
    )
    tolerance = 1e-5 if option == "--compile" else 1e-6
    for name in plain:
        np.testing.assert_allclose(other[name], plain[name], atol=tolerance)


def test_a_missing_compiler_is_refused(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "finds no no-such-compiler; install one" in refused("--compile")


def test_an_adapter_is_continued(
    shared_data: SmallData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    options = ["--validation-share", "0.3", "--learning-rate", "0.05"]
    assert shared_data.train(first, "--lora-rank", "2", *options) == 0
    still = ["--validation-share", "0.3", "--learning-rate", "1e-12"]
    assert shared_data.train(second, *still, start=first) == 0
    before, after = (record_of(place)["losses"][0]["validation_loss"] for place in (first, second))
    assert after == pytest.approx(before, abs=2e-3)  # float16
    base = json.loads((second / "base.json").read_text())
    assert (second / base["file"]).resolve() == shared_data.path("start").resolve()
    capsys.readouterr()
    assert shared_data.train(tmp_path / "third", "--lora-rank", "3", start=first) == 2
    assert "has rank 2 and alpha 4, which training continues" in capsys.readouterr().err


def test_a_trimmed_vocabulary_keeps_names_and_is_the_adapters(
    shared_data: SmallData, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    start = Tokenizer.from_file(str(shared_data.path("start") / "tokenizer.json"))
    assert shared_data.train(adapter, "--lora-rank", "2", "--trim-vocabulary", "1") == 0
    kept = np.load(adapter / "vocabulary.npy")
    tokenizer = Tokenizer.from_file(str(adapter / "tokenizer.json"))
    assert len(kept) == tokenizer.get_vocab_size() < start.get_vocab_size()
    for text in [*NAMES, "FOOD", "food", "age=10s", END]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert kept[ids].tolist() == start.encode(text, add_special_tokens=False).ids
    again = ["--lora-rank", "2", "--learning-rate", "1e-12", "--validation-share", "0.3"]
    assert shared_data.train(tmp_path / "again", *again, start=adapter) == 0
    assert np.array_equal(np.load(tmp_path / "again" / "vocabulary.npy"), kept)
