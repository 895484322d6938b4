"""The production configuration, unchanged, on a real tritonserver with a stand-in for the engine.

``stand_ins/tensorrtllm`` replaces TensorRT-LLM and its GPU. Everything else is what is deployed:
the repository as `adprior build` writes it, tritonserver, the models, the clients. The same
repository serves the embedded engine, whose exact search gives the answers to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from adprior_client import Forecast
from adprior_runtime import contract
from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, MANIFEST, Bundle, Manifest
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.cli import main
from adprior_runtime.contract import Target
from adprior_runtime.errors import ArtefactError
from adprior_runtime.repository.checker import check_repository
from adprior_runtime.repository.model_configs import set_parameters
from adprior_runtime.repository.tensorrt_llm_names import KV_CACHE_SHARE
from adprior_runtime.server.tritonserver import TritonServer
from integration.metrics_page import read_settled
from integration.output_subsets import ENSEMBLES, assert_subsets_are_answered, output_subsets
from stand_ins.engine_files import BACKEND, MOUNT_VARIABLE, add_engine
from support.data_set import user
from support.paths import ROOT
from support.raw_requests import infer, infer_context
from support.servers import Served, build_repository, serve, start_server

pytestmark = pytest.mark.triton

TOLERANCE = 1e-3
DEPLOYMENT = """
gpu = "L4"
memory_gib = 22.4
quantisation = "none"
prompt_tokens = 96
beam_width = {beam_width}
concurrency = 8
kv_cache_share = 0.85
"""


@dataclass(frozen=True, kw_only=True)
class Both:
    """One bundle, served by the embedded engine and in the production configuration."""

    repository: Path
    embedded_repository: Path
    bundle: Bundle
    users: Sequence[Mapping[str, Any]]
    embedded: Served
    production: Served

    @property
    def advertisers(self) -> Advertisers:
        return Advertisers.load(self.bundle.path(ADVERTISERS_DIRECTORY))

    def names_of(self, advertiser_id: int) -> int:
        """Return how many names an advertiser has; stock beams may miss some of them."""
        (row,) = self.advertisers.rows_of(np.array([advertiser_id]))
        return int(self.advertisers.path_counts[row])


def _start_production(repository: Path) -> TritonServer:
    """Start a server that reads ``config.pbtxt``, its repository mounted as in the container."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MOUNT_VARIABLE, str(repository))
        return start_server(repository, target=Target.TENSORRT_LLM, backends=[BACKEND])


def _build(place: Path, bundle: Path, checkpoint: Path | None) -> tuple[Path, Path]:
    """Build a repository with an engine; return it, and one for the embedded server.

    With a checkpoint, the first is what a GPU node gets: `adprior build --engine tensorrt-llm`
    with a prebuilt engine, without an ONNX model. Otherwise one repository serves both.
    """
    repository = place / "repository"
    embedded = build_repository(bundle, place / "embedded")
    engine = add_engine(embedded, bundle)
    if checkpoint is None:
        return embedded, embedded
    manifest = Bundle.open(bundle, ()).manifest
    deployment = place / "deployment.toml"
    deployment.write_text(DEPLOYMENT.format(beam_width=manifest.beam_width))
    options = ["--engine", "tensorrt-llm", "--engine-from", str(engine), "--deployment"]
    options += [str(deployment), "--forecast-k", str(manifest.forecast_k)]
    build = ["build", "--checkpoint", str(checkpoint), "--output", str(repository)]
    assert main([*build, *options]) == 0
    for file in ("config.json", "rank0.engine"):
        (engine / file).unlink()
    return repository, embedded


@pytest.fixture(scope="module", params=["trained", "compiled"])
def both(
    request: pytest.FixtureRequest,
    checkpoint: Path,
    bundle: Path,
    served: Served,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Both]:
    """One repository for both servers, and one that was built for the GPU alone."""
    is_compiled = request.param == "compiled"
    users = [user(events) for events in (0, 1, 4, 9, 17, 33)]
    repository, embedded_repository = _build(
        tmp_path_factory.mktemp("production"), bundle, checkpoint if is_compiled else None
    )
    with (
        (
            nullcontext(served) if is_compiled else serve(start_server(embedded_repository))
        ) as embedded,
        serve(_start_production(repository)) as production,
    ):
        yield Both(
            repository=repository,
            embedded_repository=embedded_repository,
            bundle=Bundle.open(bundle),
            users=users,
            embedded=embedded,
            production=production,
        )


def test_the_served_repository_passes_the_check(both: Both) -> None:
    assert check_repository(both.repository) == []


def test_the_served_configurations_are_the_committed_ones(both: Both) -> None:
    """A build changes only the bundle's beam width and, with a deployment, the KV cache's share."""
    changed = {"max_beam_width": str(both.bundle.manifest.beam_width)}
    if both.repository != both.embedded_repository:
        changed[KV_CACHE_SHARE] = "0.85"
    for name in contract.MODEL_NAMES:
        text = (ROOT / "model_repository" / name / "config.pbtxt").read_text()
        expected = set_parameters(text, changed) if name == contract.LLM_ENGINE else text
        assert (both.repository / name / "config.pbtxt").read_text() == expected


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_a_request_may_name_any_outputs_of_an_ensemble(both: Both, ensemble: str) -> None:
    candidates = both.advertisers.ids[:5].tolist()
    subsets = output_subsets(ensemble, pairs=False)
    address = both.production.server.grpc_address
    assert_subsets_are_answered(address, ensemble, both.users[-1], candidates, subsets)


def _log_probs(forecast: Forecast) -> dict[int, float]:
    return {advertiser.advertiser_id: advertiser.log_prob for advertiser in forecast.advertisers}


def test_both_servers_agree_on_the_advertisers_that_both_return(both: Both) -> None:
    manifest = both.repository / contract.TOKENIZER / "1" / "bundle" / MANIFEST
    bundle_id, agreed = Manifest.load(manifest).bundle_id, 0
    for context in both.users:
        exact = both.embedded.retrieval.forecast(context, k=256)
        stock = both.production.retrieval.forecast(context)
        assert not stock.exact
        assert stock.bundle_id == bundle_id
        truth, found = _log_probs(exact), _log_probs(stock)
        assert found
        assert [*found.values()] == sorted(found.values(), reverse=True)
        for advertiser_id in found.keys() & truth.keys():
            if both.names_of(advertiser_id) == 1:
                assert abs(found[advertiser_id] - truth[advertiser_id]) <= TOLERANCE
                agreed += 1
            else:  # stock beams may have found only some of its names
                assert found[advertiser_id] <= truth[advertiser_id] + TOLERANCE
        hidden = sum(math.exp(truth[key]) for key in truth.keys() - found.keys())
        assert stock.missing_mass >= hidden - TOLERANCE
    assert agreed >= 3 * len(both.users)


def test_production_finds_the_best_advertiser(both: Both) -> None:
    for context in both.users:
        (best,) = both.embedded.retrieval.forecast(context, k=1).advertisers
        found = _log_probs(both.production.retrieval.forecast(context))
        assert best.advertiser_id in found or best.log_prob < min(found.values()) + TOLERANCE


def test_production_respects_k_and_exclusions(both: Both) -> None:
    whole = both.production.retrieval.forecast(both.users[-1])
    first, *others = [advertiser.advertiser_id for advertiser in whole.advertisers]
    cut = both.production.retrieval.forecast(both.users[-1], 1, excluded_advertiser_ids=[first])
    assert [advertiser.advertiser_id for advertiser in cut.advertisers] == others[:1]
    assert cut.missing_mass > whole.missing_mass


def test_ranking_uses_the_forecast_if_the_engine_scores_no_candidates(both: Both) -> None:
    ids = both.advertisers.ids
    statuses = set()
    for context in both.users:
        shown = [a.advertiser_id for a in both.production.retrieval.forecast(context).advertisers]
        candidates = [*shown[:3], *map(int, ids[:: max(1, len(ids) // 20)]), -7]
        candidates = list(dict.fromkeys(candidates))
        logits = np.linspace(-3, 1, len(candidates)).tolist()
        exact = both.embedded.ranking.score(context, candidates, logits).candidates
        stock = both.production.ranking.score(context, candidates, logits).candidates
        for found, truth in zip(stock, exact, strict=True):
            assert found.advertiser_id == truth.advertiser_id
            assert math.isfinite(found.adjusted_logit)
            statuses.add(found.status)
            if found.status == "not_in_catalogue":
                assert truth.status == "not_in_catalogue"
                assert found.adjusted_logit == found.base_logit
                continue
            assert found.log_prob is not None
            assert truth.log_prob is not None
            if found.status == "exact":
                assert abs(found.log_prob - truth.log_prob) <= TOLERANCE
            elif truth.status == "exact":
                assert found.log_prob >= truth.log_prob - TOLERANCE
    assert statuses == {"exact", "upper_bound", "not_in_catalogue"}


def _counts(server: TritonServer) -> dict[str, float]:
    """Return the decoder's counts of all beams, and of dropped beams by reason."""
    page = read_settled(server)
    return {"all": page.total("adprior_beams_total")} | page.by_label(
        "adprior_dropped_beams_total", "reason"
    )


def test_dropped_beams_are_counted_by_reason(both: Both) -> None:
    before = _counts(both.production.server)
    forecasts = [both.production.retrieval.forecast(context, k=256) for context in both.users]
    after = _counts(both.production.server)
    grown = {name: after[name] - before[name] for name in after}
    assert grown.keys() == {"all", "incomplete", "off_catalogue", "duplicate"}
    assert grown["all"] == len(both.users) * both.bundle.manifest.beam_width
    kept = grown["all"] - grown["incomplete"] - grown["off_catalogue"]
    named = [advertiser for forecast in forecasts for advertiser in forecast.advertisers]
    assert grown["duplicate"] == 0
    assert len(named) <= kept <= sum(both.names_of(item.advertiser_id) for item in named)
    assert _counts(both.embedded.server).keys() == grown.keys()


def test_concurrent_requests_each_get_their_own_answer(both: Both) -> None:
    alone = [_log_probs(both.production.retrieval.forecast(context)) for context in both.users]
    with ThreadPoolExecutor(12) as pool:
        places = [index % len(both.users) for index in range(48)]
        forecasts = pool.map(lambda i: both.production.retrieval.forecast(both.users[i]), places)
        for place, forecast in zip(places, forecasts, strict=True):
            found = _log_probs(forecast)
            assert found.keys() == alone[place].keys()
            for key, value in found.items():
                assert abs(value - alone[place][key]) <= 1e-4


def test_a_malformed_context_is_refused_before_the_engine(both: Both) -> None:
    with pytest.raises(InferenceServerException, match="as_of") as caught:
        infer_context(both.production.server.grpc_address, b"{}")
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def _infer_engine(server: TritonServer, users: int, **changed: int) -> Any:
    """Call the engine directly, as TensorRT-LLM's own clients do."""
    tensors: dict[str, Any] = {
        "input_ids": [5, 5],
        "input_lengths": [2],
        "request_output_len": [2],
        "beam_width": [2],
        "end_id": [0],
        "pad_id": [0],
        "return_log_probs": [True],
    } | {name: [value] for name, value in changed.items()}
    return infer(
        server.grpc_address, contract.LLM_ENGINE, tensors, target=Target.TENSORRT_LLM, users=users
    )


def test_the_engine_accepts_tensorrt_llms_own_tensors(both: Both) -> None:
    answer = _infer_engine(both.production.server, 1)
    assert answer.as_numpy(contract.OUTPUT_IDS).shape[:2] == (1, 2)
    assert answer.as_numpy(contract.CUM_LOG_PROBS).shape == (1, 2)


@pytest.mark.parametrize(
    ("users", "changed", "message"),
    [(2, {}, "2 sequences"), (1, {"beam_width": 99}, "beam_width 99")],
)
def test_the_engine_refuses_what_tensorrt_llm_refuses(
    both: Both, users: int, changed: dict[str, int], message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message) as caught:
        _infer_engine(both.production.server, users, **changed)
    assert caught.value.status() == "StatusCode.INTERNAL"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_beam_width": 1}, "the engine was built for 1"),
        ({}, "gpt_model_path /models/llm_engine/1 does not exist"),
    ],
)
def test_an_engine_that_does_not_load_gives_one_clear_error(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, int],
    message: str,
) -> None:
    repository = build_repository(tiny_bundle, tmp_path / "repository")
    add_engine(repository, tiny_bundle, **changed)
    if changed:
        monkeypatch.setenv(MOUNT_VARIABLE, str(repository))
    with pytest.raises(ArtefactError, match=f"model llm_engine did not load: .*{message}"):
        start_server(repository, target=Target.TENSORRT_LLM, backends=[BACKEND])
