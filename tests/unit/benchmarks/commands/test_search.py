from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from adprior_bench.commands import search
from adprior_bench.search import on_synthetic, together
from adprior_bench.search.on_synthetic import measure_synthetic
from adprior_bench.search.rows import ROW_KEYS, make_row
from adprior_bench.search.synthetic import END_ID, random_catalogue, write_graph
from adprior_bench.search.together import measure_together, operations
from adprior_bench.search.transformers_generate import generate_names
from adprior_build.onnx_graph.architecture import read_architecture
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.cli import main
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.errors import AdpriorError
from adprior_runtime.search.search import TrieSearch
from adprior_runtime.search.settings import SearchMode, SearchSettings
from adprior_runtime.search.tree import read_prompt

WIDTH = 6
PROMPT = [5, 9, 4, 7]
SETTINGS = SearchSettings(mode=SearchMode.BEAM, width=WIDTH)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=40,
        max_position_embeddings=64,
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=END_ID,
        pad_token_id=0,
    )
    llama = LlamaForCausalLM(config).eval()
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    return llama, write_graph(llama, path, "fp32")


@pytest.fixture(scope="module")
def trie() -> Trie:
    random = np.random.default_rng(2)
    names = {
        (*random.integers(3, 40, size=random.integers(1, 4)).tolist(), END_ID) for _ in range(90)
    }
    return Trie.build(sorted(names), np.arange(len(names)))


def test_a_random_catalogue_has_the_right_size_and_lengths() -> None:
    catalogue = random_catalogue(500)
    assert len(catalogue.leaf_nodes) == 500
    _, lengths = catalogue.paths(catalogue.leaf_nodes)
    assert set(lengths.tolist()) == {5, 6, 7}  # 4 to 6 tokens and the terminator


def test_the_peer_finds_what_the_search_finds(model: tuple[Any, Path], trie: Trie) -> None:
    engine = OnnxEngine(model[1], threads=1)
    search = TrieSearch(engine, trie, read_prompt(engine, trie, PROMPT), SETTINGS)
    log_probs = search.run(WIDTH).log_probs
    names = generate_names(model[0], PROMPT, trie, WIDTH, END_ID)
    assert names
    scores = search.score(np.array([trie.lookup(name) for _, name in names]))
    np.testing.assert_allclose([score for score, _ in names], scores.log_probs, atol=1e-3)
    assert log_probs[len(names) - 1] >= names[-1][0] - 1e-3


@pytest.mark.parametrize("value", [math.nan, -1e9, 0.0])
@pytest.mark.parametrize("place", [0, -1])
def test_a_peer_with_other_scores_is_refused(
    model: tuple[Any, Path], trie: Trie, value: float, place: int
) -> None:
    engine = OnnxEngine(model[1], threads=1)
    names = generate_names(model[0], PROMPT, trie, WIDTH, END_ID)
    on_synthetic._compare(names, engine, trie, PROMPT, SETTINGS)
    names[place] = (value, names[place][1])
    with pytest.raises(AdpriorError, match=r"transformers.generate: scores differ by"):
        on_synthetic._compare(names, engine, trie, PROMPT, SETTINGS)


ROUNDS = 3


@pytest.fixture(scope="module")
def rows(model: tuple[Any, Path], trie: Trie) -> list[dict[str, Any]]:
    """The rows of a small model."""
    options = f"--sizes {len(trie.leaf_nodes)} --rounds {ROUNDS} --peer-rounds 2 --threads 1"
    options += f" --prompt-tokens 7 --width {WIDTH} --candidates 8 --precisions int8"
    parser = argparse.ArgumentParser()
    search.add_arguments(parser)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_synthetic, "VOCABULARY", 40)
        patch.setattr(on_synthetic, "synthetic_model", lambda _: model[0])
        patch.setattr(on_synthetic, "random_catalogue", lambda _: trie)
        return measure_synthetic(parser.parse_args(options.split()), model[1].parent)


def test_every_row_has_every_key(rows: list[dict[str, Any]]) -> None:
    assert {tuple(row) for row in rows} == {ROW_KEYS}
    assert json.loads(json.dumps(rows)) == rows
    modes = [row["mode"] for row in rows]
    assert modes == ["beam", "exact", "beam", "score 8 candidates", "beam"]
    assert [row["precision"] for row in rows] == ["fp32"] * (len(rows) - 1) + ["int8"]


def test_every_time_has_its_quartiles(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        for name in ("prefill_ms", "search_ms", "peer_ms"):
            if row[name] is None:
                assert (name, row["peer"]) == ("peer_ms", None)
            else:
                low, high = row[f"{name}_quartiles"]
                assert 0 < low <= row[name] <= high
        assert row["search_over_prefill"] == row["search_ms"] / row["prefill_ms"]
        assert row["rss_mb"] > 0


def test_a_row_of_candidates_compares_a_token_with_the_prefills(rows: list[dict[str, Any]]) -> None:
    (scored,) = [row for row in rows if row["mode"].startswith("score")]
    of_a_token = scored["search_ms"] / scored["extended_tokens"]
    assert scored["work_ratio"] == pytest.approx(of_a_token / (scored["prefill_ms"] / 7))
    assert all(row["prompt_tokens"] == 7 for row in rows)


def test_the_memory_of_a_request_is_compared_with_weights_and_cache(
    rows: list[dict[str, Any]], model: tuple[Any, Path]
) -> None:
    (row,) = [row for row in rows if row["peak_mb"] is not None]
    assert row["mode"] == "beam"
    assert row["weights_mb"] == model[1].parent.joinpath("fp32.onnx").stat().st_size / 2**20
    cached = 7 + row["extended_tokens"]  # of keys and values, 16 numbers each
    assert row["cache_mb"] == pytest.approx(2 * cached * 16 * 4 / 2**20, rel=0.5)
    assert row["peak_mb"] >= row["loaded_mb"] > 0
    both = row["weights_mb"] + row["cache_mb"]
    assert row["peak_over_weights_and_cache"] == pytest.approx(row["peak_mb"] / both)


def test_the_peer_is_compared_with_the_beam(rows: list[dict[str, Any]]) -> None:
    beam, peers = rows[0], [row for row in rows if row["peer"] is not None]
    assert [row["peer"] for row in peers] == ["transformers.generate"]
    for row in peers:
        assert row["search_ms"] == beam["search_ms"]
        assert row["peer_over_search"] == row["peer_ms"] / beam["search_ms"]


def test_a_row_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown keys of a row: \['select'\]"):
        make_row(model="m", select=3.0)


def test_onnx_runtime_is_measured_on_the_cpu_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "search", "--device", "cuda"]) == 2
    assert "--device cuda goes with --together" in capsys.readouterr().err


def test_products_are_those_of_the_torch_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "search", "--products", "bf16-parts"]) == 2
    assert "--products goes with --together" in capsys.readouterr().err


def test_users_are_measured_together_and_alone(
    model: tuple[Any, Path], trie: Trie, tmp_path: Path
) -> None:
    options = "--together 2 3 --sizes 300 --rounds 4 --width 4 --top-k 3 --prompt-tokens 9"
    parser = argparse.ArgumentParser()
    search.add_arguments(parser)
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "synthetic_model", lambda _: model[0])
        patch.setattr(together, "VOCABULARY", 40)
        patch.setattr(together, "random_catalogue", lambda *_, **__: trie)
        patch.setattr(together, "_WIDE", 64)
        args = parser.parse_args([*options.split(), "--threads", "1"])
        rows = measure_together(args, tmp_path)
    torch.set_num_threads(before)
    assert [row["users"] for row in rows] == [1, 2, 3]
    assert json.loads(json.dumps(rows)) == rows
    assert rows[0]["over_alone"] == 1
    for row in rows:
        assert row["over_alone"] == pytest.approx(row["users_per_s"] / rows[0]["users_per_s"])
        assert row["share_of_floor"] == row["users_per_s"] / row["floor_users_per_s"] > 0
        assert row["extended_tokens"] == rows[0]["extended_tokens"] > 0


def test_forms_of_products_are_measured_one_after_another(
    model: tuple[Any, Path], trie: Trie, tmp_path: Path
) -> None:
    options = "--together 2 --sizes 300 --rounds 2 --width 4 --top-k 3 --prompt-tokens 9"
    options += " --threads 1 --products fp32 bf16-parts"
    parser = argparse.ArgumentParser()
    search.add_arguments(parser)
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "synthetic_model", lambda _: model[0])
        patch.setattr(together, "VOCABULARY", 40)
        patch.setattr(together, "random_catalogue", lambda *_, **__: trie)
        patch.setattr(together, "_WIDE", 64)
        rows = measure_together(parser.parse_args(options.split()), tmp_path)
    torch.set_num_threads(before)
    forms = [form for form in ("fp32", "bf16-parts") for _ in range(2)]
    assert [row["products"] for row in rows] == forms
    assert all(row["product_tflops"] > 0 for row in rows)


def test_names_may_have_one_length() -> None:
    trie = random_catalogue(50, name_tokens=2)
    lengths = trie.paths(trie.leaf_nodes)[1]
    assert lengths.tolist() == [3] * 50  # and the terminator


def test_operations_are_two_for_each_weight_and_token(model: tuple[Any, Path]) -> None:
    of = read_architecture(model[0].config.to_dict())
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64
    assert operations(of, 10, 5) == 2 * (layer * 15 + 32 * 40 * 6)


def test_a_bundle_is_measured_with_users_of_its_own_log(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events, columns = tmp_path / "events.csv", tmp_path / "columns.toml"
    events.write_text("who,day,brand\na,2001-01-01,Acme\n")
    columns.write_text('[events]\nuser = "who"\ntime = "day"\nadvertiser = "brand"\n')
    options = ["--sizes", "--bundle", str(tiny_bundle), "--rounds", "1"]
    options += ["--events", str(events), "--columns", str(columns)]
    assert main(["bench", "search", *options]) == 2
    error = capsys.readouterr().err
    assert f"{events}: not the log that bundle" in error
    assert "the model's events.parquet (sha256 5eed5eed5eed" in error
    assert error.count("\n") == 1
    assert main(["bench", "search", *options, "--other-log"]) == 2
    assert "no test user has an event" in capsys.readouterr().err


def test_a_log_needs_a_bundle(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "search", "--events", "events.parquet"]) == 2
    assert "--events needs a --bundle" in capsys.readouterr().err
