"""The search, as served, against brute force over the whole catalogue."""

from __future__ import annotations

import json
import math
import tomllib
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

from adprior_build.catalogue.catalogue import read_catalogue
from adprior_client import ClientConfig, Forecast, RankingClient, RetrievalClient
from adprior_runtime.bundle import CATALOGUE_FILE, Bundle
from adprior_runtime.cli import main
from adprior_runtime.prompt.context import parse_context
from adprior_runtime.prompt.renderer import PromptRenderer
from integration.brute_force import name_log_probs, rebuild_llama
from support.data_set import ADVERTISERS, DataSet, user
from support.servers import start_server

pytestmark = pytest.mark.triton

ROOT = Path(__file__).parents[2]
TIE = 1e-4
UNPROVED = 1e-3
"""Two advertisers so close may be a tie to the engine: more than the bundles' margins here."""
TOLERANCE = 1e-3
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
BOTH = ("llama", "qwen3", "mistral")
"""Served with either search; the others with the exact one."""
SHORT = ("llama", "gemma3_text")
"""Always served: the plain family, and the one with the most of its own."""


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
class Served:
    """A server of one bundle, and what it must answer."""

    mode: str
    truth: Truth
    retrieval: RetrievalClient
    ranking: RankingClient


@pytest.fixture(scope="module")
def train(
    data_set: DataSet, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Return what makes a bundle and a checkpoint of an architecture, once."""
    return cache(lambda name: _train(name, data_set, checkpoint, tmp_path_factory.mktemp(name)))


def _train(name: str, data_set: DataSet, checkpoint: Path, place: Path) -> Path:
    """Train for a moment from random weights, and build."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    torch.manual_seed(3)
    family, settings = ARCHITECTURES[name]
    config = family(**(SMALL | settings), vocab_size=tokenizer.get_vocab_size())
    AutoModelForCausalLM.from_config(config).save_pretrained(place / "random")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(place / "random")
    (place / "random" / "prompt.json").write_bytes((checkpoint / "prompt.json").read_bytes())
    arguments = data_set.train_arguments(place / "checkpoint", epochs=1)
    size = arguments.index("--size")
    arguments[size : size + 2] = ["--from", str(place / "random")]
    assert main([*arguments, "--learning-rate", "1e-4"]) == 0
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
        for mode in (SEARCHES if name in BOTH else ["exact"])
    ],
)
def served(
    request: pytest.FixtureRequest,
    train: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    name, mode = request.param
    trained, place = train(name), tmp_path_factory.mktemp(mode)
    build = ["build", "--bundle", str(trained / "bundle"), "--output", str(place / "repository")]
    build += ["--save-bundle", str(place / "bundle"), *SEARCHES[mode]]
    assert main(build) == 0
    model = AutoModelForCausalLM.from_pretrained(trained / "checkpoint").eval()
    with (
        start_server(place / "repository") as server,
        RetrievalClient(
            ClientConfig(urls=(server.grpc_address,), deadline_s=60, fail_open=False)
        ) as retrieval,
        RankingClient(
            ClientConfig(urls=(server.grpc_address,), deadline_s=60, fail_open=False)
        ) as ranking,
    ):
        truth = Truth(model=model, bundle=Bundle.open(place / "bundle"))
        yield Served(mode=mode, truth=truth, retrieval=retrieval, ranking=ranking)


def assert_agrees(
    forecast: Forecast, truth: Mapping[int, float], k: int, excluded: set[int], *, must: bool
) -> None:
    """Compare with brute force: the ids where it says EXACT, the bounds always."""
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
    assert forecast.exact or tie or not must
    if not forecast.exact:
        return
    assert len(shown) == count
    for advertiser, best in zip(forecast.advertisers, ranked, strict=False):
        own = math.log(eligible[advertiser.advertiser_id])
        assert abs(own - math.log(eligible[best])) <= TIE
        assert abs(advertiser.log_prob - own) <= TOLERANCE


USERS = [user(events) for events in (0, 1, 4, 9, 17, 33)]


@pytest.mark.timeout(600)
def test_served_forecasts_equal_brute_force(served: Served) -> None:
    asked: list[tuple[int, int, set[int]]] = []
    truths = [served.truth.of(context) for context in USERS]
    for index, truth in enumerate(truths):
        best = sorted(truth, key=lambda key: -truth[key])
        asked += [(index, 3, set()), (index, 9, set()), (index, 1000, set())]
        asked += [(index, 4, set(best[:3])), (index, 4, set(best[::2]))]

    def ask(case: tuple[int, int, set[int]]) -> Forecast:
        index, k, excluded = case
        return served.retrieval.forecast(USERS[index], k, excluded_advertiser_ids=sorted(excluded))

    with ThreadPoolExecutor(8) as pool:  # lengths and requests mix in the server's batches
        forecasts = list(pool.map(ask, asked))
    for (index, k, excluded), forecast in zip(asked, forecasts, strict=True):
        assert_agrees(forecast, truths[index], k, excluded, must=served.mode == "exact")
    assert any(forecast.exact for forecast in forecasts)


@pytest.mark.timeout(600)
def test_served_candidate_scores_equal_brute_force_and_bounds_are_bounds(served: Served) -> None:
    candidates = [100 + row for row in range(len(ADVERTISERS))]
    statuses = set()
    for context in USERS[::2]:
        truth = served.truth.of(context)
        scored = served.ranking.score(context, candidates, [0.0] * len(candidates))
        for candidate in scored.candidates:
            assert candidate.log_prob is not None
            own = math.log(truth[candidate.advertiser_id])
            statuses.add(candidate.status)
            if candidate.status == "exact":
                assert abs(candidate.log_prob - own) <= TOLERANCE
            else:
                assert candidate.log_prob >= own - TOLERANCE
    assert statuses == ({"exact"} if served.mode == "exact" else {"exact", "upper_bound"})


@pytest.mark.timeout(600)
def test_the_shipped_bundle_equals_brute_force(tmp_path: Path) -> None:
    bundle = Bundle.open(ROOT / "demo" / "bundle")
    size = tomllib.loads((ROOT / "demo" / "size.toml").read_text())
    model = rebuild_llama(bundle.path("model.onnx"), size)
    truth = Truth(model=model, bundle=bundle)
    repository = tmp_path / "repository"
    assert main(["build", "--bundle", str(bundle.directory), "--output", str(repository)]) == 0
    with (
        start_server(repository) as server,
        RetrievalClient(
            ClientConfig(urls=(server.grpc_address,), deadline_s=60, fail_open=False)
        ) as retrieval,
        RankingClient(
            ClientConfig(urls=(server.grpc_address,), deadline_s=60, fail_open=False)
        ) as ranking,
    ):
        for path in sorted((ROOT / "demo" / "users").glob("*.json")):
            context = json.loads(path.read_text())
            probabilities = truth.of(context)
            forecast = retrieval.forecast(context)
            assert_agrees(forecast, probabilities, 20, set(), must=True)
            best = {advertiser.advertiser_id for advertiser in forecast.advertisers[:5]}
            without = retrieval.forecast(context, excluded_advertiser_ids=sorted(best))
            assert_agrees(without, probabilities, 20, best, must=True)
            random = np.random.default_rng(1).choice(sorted(probabilities), 200, replace=False)
            scored = ranking.score(context, random.tolist(), [0.0] * len(random)).candidates
            for candidate in scored:
                assert candidate.status == "exact"
                assert candidate.log_prob is not None
                own = math.log(probabilities[candidate.advertiser_id])
                assert abs(candidate.log_prob - own) <= TOLERANCE
