"""Served forecasts and candidate scores equal brute force over the whole catalogue."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from adprior_build.catalogue.catalogue_file import read_catalogue
from adprior_client import Forecast, Ranking
from adprior_runtime.bundle import CATALOGUE_FILE, Bundle
from adprior_runtime.cli import main
from adprior_runtime.prompt.context import parse_context
from adprior_runtime.prompt.renderer import PromptRenderer
from integration.brute_force import name_log_probs
from support.data_set import ALIASES, IDS, DataSet, user
from support.paths import DEMO
from support.servers import Served, build_repository, serve, start_server

pytestmark = pytest.mark.triton

TIE = 1e-4
UNPROVED = 1e-3
"""The engine may not prove an order of probabilities that are this close, relatively."""
TOLERANCE = 1e-3
USERS = [user(events) for events in (0, 1, 4, 9, 17, 33)]
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "initializer_range": 0.5,  # far from uniform, so that the search has something to find
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
GEMMA = {"head_dim": 8, "tie_word_embeddings": True}
ARCHITECTURES: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, {}),
    "qwen3": (Qwen3Config, {}),
    "mistral": (MistralConfig, {}),
    "qwen2": (Qwen2Config, {}),
    "gemma": (GemmaConfig, GEMMA),
    "gemma2": (Gemma2Config, GEMMA),
    "gemma3_text": (
        Gemma3TextConfig,
        GEMMA | {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 128},
    ),
}
SEARCHES = {
    "exact": ["--search-mode", "exact", "--beam-width", "4", "--token-budget", "100000"],
    "beam": ["--search-mode", "beam", "--beam-width", "4", "--candidate-token-budget", "12"],
}
BOTH_SEARCHES = ("llama", "qwen3", "mistral")
"""The other architectures are served with the exact search only."""
SHORT = ("llama", "gemma3_text")
"""Tested without ``--long``: the plain architecture, and the one that differs most from it."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Every advertiser's probability for a user, by brute force."""

    model: Any
    bundle: Bundle

    def of(self, context: Mapping[str, Any]) -> dict[int, float]:
        renderer = PromptRenderer.load(
            self.bundle.path("prompt.json"), self.bundle.path("tokenizer.json")
        )
        prompt = renderer.render(parse_context(json.dumps(context).encode())).token_ids
        catalogue = read_catalogue(self.bundle.path(CATALOGUE_FILE))
        owners, paths = [], []
        for advertiser, name, aliases in zip(
            catalogue.ids, catalogue.names, catalogue.aliases, strict=True
        ):
            distinct = {tuple(renderer.name_ids(text)) for text in (name, *aliases)}
            owners += [advertiser] * len(distinct)
            paths += sorted(distinct)
        total = dict.fromkeys(catalogue.ids, 0.0)
        scores = name_log_probs(self.model, prompt, paths)
        for owner, log_prob in zip(owners, scores, strict=True):
            total[owner] += math.exp(log_prob)
        return total


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A server of one bundle and search, and the true probabilities."""

    mode: str
    truth: Truth
    served: Served


@pytest.fixture(scope="module")
def train(
    data_set: DataSet, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Return a function that trains an architecture and builds its bundle, once each."""
    return cache(lambda name: _train(name, data_set, checkpoint, tmp_path_factory.mktemp(name)))


def _train(name: str, data_set: DataSet, checkpoint: Path, place: Path) -> Path:
    """Train random weights for one epoch, and build a bundle."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    torch.manual_seed(3)
    family, settings = ARCHITECTURES[name]
    config = family(**(SMALL | settings), vocab_size=tokenizer.get_vocab_size())
    AutoModelForCausalLM.from_config(config).save_pretrained(place / "random")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(place / "random")
    (place / "random" / "prompt.json").write_bytes((checkpoint / "prompt.json").read_bytes())
    arguments = data_set.train_arguments(
        place / "checkpoint", epochs=1, start=place / "random", learning_rate="1e-4"
    )
    assert main(arguments) == 0
    build = ["build", "--checkpoint", str(place / "checkpoint"), "--forecast-k", "5"]
    build += ["--save-bundle", str(place / "bundle"), "--output", str(place / "repository")]
    assert main(build) == 0
    return place


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            (name, mode),
            id=f"{name}-{mode}",
            marks=() if name in SHORT else pytest.mark.long_form,
        )
        for name in ARCHITECTURES
        for mode in (SEARCHES if name in BOTH_SEARCHES else ["exact"])
    ],
)
def searched(
    request: pytest.FixtureRequest,
    train: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Searched]:
    name, mode = request.param
    trained, bundle = train(name), tmp_path_factory.mktemp(mode) / "bundle"
    options = ["--save-bundle", str(bundle), *SEARCHES[mode]]
    repository = build_repository(trained / "bundle", bundle.with_name("repository"), *options)
    model = AutoModelForCausalLM.from_pretrained(trained / "checkpoint").eval()
    with serve(start_server(repository)) as served:
        truth = Truth(model=model, bundle=Bundle.open(bundle))
        yield Searched(mode=mode, truth=truth, served=served)


def assert_agrees(
    forecast: Forecast,
    truth: Mapping[int, float],
    k: int,
    excluded: set[int],
    *,
    must_be_exact: bool = True,
) -> None:
    """Compare with brute force: scores and bounds, and the advertisers if the forecast is exact."""
    eligible = {key: p for key, p in truth.items() if key not in excluded}
    ranked = sorted(eligible, key=lambda key: -eligible[key])
    shown = [advertiser.advertiser_id for advertiser in forecast.advertisers]
    assert set(shown) <= set(eligible)
    hidden = sum(truth.values()) - sum(truth[key] for key in shown)
    assert forecast.missing_mass >= hidden - 1e-4
    count = min(k, len(ranked))
    tie = count < len(ranked) and math.isclose(
        eligible[ranked[count - 1]], eligible[ranked[count]], rel_tol=UNPROVED
    )
    assert forecast.exact or tie or not must_be_exact
    for advertiser, best in zip(forecast.advertisers, ranked, strict=False):
        own = math.log(eligible[advertiser.advertiser_id])
        assert advertiser.log_prob <= own + TOLERANCE
        # An alias outside the beams is missing from the sum, which is then a lower bound.
        if forecast.exact or advertiser.name not in ALIASES:
            assert advertiser.log_prob >= own - TOLERANCE
        if forecast.exact:
            assert abs(own - math.log(eligible[best])) <= TIE
    assert len(shown) == count or not forecast.exact


def assert_scores_agree(ranking: Ranking, truth: Mapping[int, float]) -> set[str]:
    """Compare scores and bounds with brute force; return the statuses of the candidates."""
    for candidate in ranking.candidates:
        assert candidate.log_prob is not None
        own = math.log(truth[candidate.advertiser_id])
        assert candidate.log_prob >= own - TOLERANCE
        assert candidate.log_prob <= own + TOLERANCE or candidate.status == "upper_bound"
    return {candidate.status for candidate in ranking.candidates}


@pytest.mark.timeout(600)
def test_served_forecasts_equal_brute_force(searched: Searched) -> None:
    requests: list[tuple[int, int, set[int]]] = []
    truths = [searched.truth.of(context) for context in USERS]
    for index, truth in enumerate(truths):
        best = sorted(truth, key=lambda key: -truth[key])
        requests += [(index, 3, set()), (index, 9, set()), (index, 1000, set())]
        requests += [(index, 4, set(best[:3])), (index, 4, set(best[::2]))]

    def send(request: tuple[int, int, set[int]]) -> Forecast:
        index, k, excluded = request
        client = searched.served.retrieval
        return client.forecast(USERS[index], k, excluded_advertiser_ids=sorted(excluded))

    with ThreadPoolExecutor(8) as pool:  # lengths and requests mix in the server's batches
        forecasts = list(pool.map(send, requests))
    for (index, k, excluded), forecast in zip(requests, forecasts, strict=True):
        is_exact = searched.mode == "exact"
        assert_agrees(forecast, truths[index], k, excluded, must_be_exact=is_exact)
    assert any(forecast.exact for forecast in forecasts)


@pytest.mark.timeout(600)
def test_served_candidate_scores_and_bounds_agree_with_brute_force(searched: Searched) -> None:
    candidates, statuses = list(IDS.values()), set()
    for context in USERS[::2]:
        ranking = searched.served.ranking.score(context, candidates, [0.0] * len(candidates))
        statuses |= assert_scores_agree(ranking, searched.truth.of(context))
    assert statuses == ({"exact"} if searched.mode == "exact" else {"exact", "upper_bound"})


@pytest.mark.timeout(600)
def test_a_catalogue_of_long_names_equals_brute_force(
    tiny_bundle: Path, tiny_served: Served
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_bundle.with_name("checkpoint")).eval()
    truth = Truth(model=model, bundle=Bundle.open(tiny_bundle))
    for path in sorted((DEMO / "users").glob("*.json")):
        context = json.loads(path.read_text())
        probabilities = truth.of(context)
        forecast = tiny_served.retrieval.forecast(context)
        assert_agrees(forecast, probabilities, 20, set())
        best = {advertiser.advertiser_id for advertiser in forecast.advertisers[:5]}
        without = tiny_served.retrieval.forecast(context, excluded_advertiser_ids=sorted(best))
        assert_agrees(without, probabilities, 20, best)
        random = np.random.default_rng(1).choice(sorted(probabilities), 200, replace=False)
        ranking = tiny_served.ranking.score(context, random.tolist(), [0.0] * len(random))
        assert assert_scores_agree(ranking, probabilities) == {"exact"}
