from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import pytest

from adprior_bench.commands import search
from adprior_bench.search.host_work import measure_host_work
from adprior_bench.search.null_passes import NullPasses
from adprior_bench.search.synthetic import random_catalogue
from adprior_bench.search.traffic import measure_traffic
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.cli import main
from adprior_runtime.engines.packed_tree import PackedTreeEngine
from adprior_runtime.engines.pass_loop import PassLoop, SharedPasses
from adprior_runtime.search.search import TrieSearch
from adprior_runtime.search.settings import SearchMode, SearchSettings
from adprior_runtime.search.tree import read_prompt

OPTIONS = "--host-work 3 --sizes 300 --rounds 2 --width 4 --top-k 3 --prompt-tokens 9"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser()
    search.add_arguments(parser)
    return measure_host_work(parser.parse_args(OPTIONS.split()))


def test_every_size_has_a_row_of_each_mode(rows: list[dict[str, Any]]) -> None:
    assert [(row["catalogue_size"], row["mode"]) for row in rows] == [(300, "beam"), (300, "exact")]
    assert json.loads(json.dumps(rows)) == rows
    for row in rows:
        for name in (
            "host_us",
            "search_us",
            "packing_us",
            "prefill_us",
            "user_host_us",
            "asked_user_host_us",
        ):
            low, high = row[f"{name}_quartiles"]
            assert 0 < low <= row[name] <= high
        assert row["passes_per_user"] >= 1
        assert row["sent_bytes"] > 4 * row["extended_tokens"] / row["passes_per_user"]


def test_with_working_ahead_less_is_sent(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert row["waits"] <= row["asked_waits"]
        assert row["asked_waits"] == pytest.approx(row["passes_per_user"] + 1)  # the prompt's
        assert row["user_sent_bytes"] < row["asked_user_sent_bytes"]


@pytest.mark.parametrize("mode", SearchMode)
def test_with_working_ahead_a_search_waits_less(mode: SearchMode) -> None:
    settings = SearchSettings(mode=mode)
    row = measure_traffic(random_catalogue(5000), [5, 6, 7], settings, 8, 20, PassLoop())
    # A search whose first levels are small extends them all in one pass.
    assert 0.5 < row["asked_waits"] - row["waits"] <= 1
    assert row["user_returned_bytes"] < row["asked_user_returned_bytes"] / 2


def test_an_exact_search_of_the_null_model_proves_its_answers(rows: list[dict[str, Any]]) -> None:
    beam, exact = rows
    assert exact["exact_fraction"] == 1
    assert exact["extended_tokens"] >= beam["extended_tokens"]


def _null_search(trie: Trie, passes: NullPasses) -> list[float]:
    engine = PackedTreeEngine(SharedPasses(passes), vocabulary=9000, max_positions=99)
    user = read_prompt(engine, trie, [5, 6, 7])
    found: list[float] = TrieSearch(engine, trie, user, SearchSettings()).run(5).log_probs.tolist()
    return found


def test_users_of_the_null_model_differ_and_come_back() -> None:
    trie, passes = random_catalogue(300), NullPasses()
    first, second = _null_search(trie, passes), _null_search(trie, passes)
    assert first != second
    passes.user = 0
    assert _null_search(trie, passes) == first


def test_the_probabilities_after_a_node_sum_to_086() -> None:
    trie, passes = random_catalogue(300), NullPasses()
    engine = PackedTreeEngine(SharedPasses(passes), vocabulary=9000, max_positions=99)
    _, ranked = read_prompt(engine, trie, [5, 6, 7])
    assert np.exp(ranked.read_all()).sum() == pytest.approx(0.86, rel=1e-5)


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "search", *OPTIONS.split()]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert "host us" in header
    assert len(lines) == 2
