"""Requests from the client through every model on a real tritonserver."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from tritonclient.utils import InferenceServerException

from adprior_client import Forecast, RankingClient, RetrievalClient, encoding
from adprior_runtime import contract
from adprior_runtime.cli import main
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.prompt.context import parse_context
from adprior_runtime.server.tritonserver import TritonServer
from integration.metrics_page import await_page, read_page, read_settled
from integration.output_subsets import ENSEMBLES, assert_subsets_are_answered, output_subsets
from support.data_set import ADVERTISERS, IDS, user
from support.raw_requests import context_tensor, infer, infer_context

pytestmark = pytest.mark.triton


def assert_is_forecast(forecast: Forecast, k: int) -> None:
    ids = [item.advertiser_id for item in forecast.advertisers]
    assert 0 < len(ids) <= k
    assert len(set(ids)) == len(ids)
    assert all(IDS[item.name] == item.advertiser_id for item in forecast.advertisers)
    probabilities = [item.probability for item in forecast.advertisers]
    assert all(first >= second for first, second in pairwise(probabilities))
    assert sum(probabilities) <= 1 + 1e-5
    assert 0 <= forecast.missing_mass <= 1


@pytest.mark.parametrize("events", [0, 1, 5, 60])
def test_retrieval_returns_advertisers_of_the_catalogue(
    retrieval: RetrievalClient, events: int
) -> None:
    forecast = retrieval.forecast(user(events), k=6)
    assert_is_forecast(forecast, 6)
    # The returned and the missing probability together cover the whole catalogue.
    whole = retrieval.forecast(user(events), k=1000)
    assert {item.name for item in whole.advertisers} == set(ADVERTISERS)
    assert whole.exact
    assert whole.missing_mass < 1e-4
    shown, catalogue = (sum(a.probability for a in f.advertisers) for f in (forecast, whole))
    assert shown + forecast.missing_mass >= catalogue - 1e-4


def test_served_forecast_equals_the_one_in_process(
    retrieval: RetrievalClient, bundle: Path
) -> None:
    forecaster = Forecaster(bundle)
    for events in (0, 7, 30):
        context = user(events)
        served = retrieval.forecast(context, k=10)
        local = forecaster.forecast(parse_context(json.dumps(context).encode()), 10)
        assert [item.advertiser_id for item in served.advertisers] == local.advertiser_ids.tolist()
        assert np.allclose([i.log_prob for i in served.advertisers], local.log_probs, atol=1e-4)
        assert served.exact == local.exact
        assert served.bundle_id == forecaster.bundle.manifest.bundle_id


def test_live_ranking_scores_every_candidate_and_agrees_with_a_given_forecast(
    retrieval: RetrievalClient, ranking: RankingClient
) -> None:
    candidates = [*IDS.values(), 999_999, -1, IDS["Kite"]]
    logits = np.linspace(-3, 1, len(candidates)).tolist()
    live = ranking.score(user(), candidates, logits)
    forecast = retrieval.forecast(user())
    assert len(forecast.advertisers) == 10
    stored = ranking.score(forecast, candidates, logits)
    assert live.bundle_id == stored.bundle_id == forecast.bundle_id
    whole = {a.advertiser_id: a.log_prob for a in retrieval.forecast(user(), k=1000).advertisers}
    shown = {a.advertiser_id for a in forecast.advertisers}
    for candidate, first, second in zip(
        candidates, live.candidates, stored.candidates, strict=True
    ):
        assert first.advertiser_id == second.advertiser_id == candidate
        if candidate in {999_999, -1}:
            assert first.status == second.status == "not_in_catalogue"
            assert first.adjusted_logit == first.base_logit
            continue
        assert first.log_prob is not None
        assert second.log_prob is not None
        assert first.status == "exact"
        assert math.isclose(first.log_prob, whole[candidate], abs_tol=1e-3)
        assert first.log_prob <= second.log_prob + 1e-4  # a bound is a bound
        if candidate in shown and second.status == "exact":
            assert math.isclose(first.adjusted_logit, second.adjusted_logit, abs_tol=1e-4)


def test_ranking_truncates_a_forecast_to_the_bundles_length(
    retrieval: RetrievalClient, ranking: RankingClient
) -> None:
    longer = retrieval.forecast(user(), k=25)
    beyond = sum(item.probability for item in longer.advertisers[10:])
    cut = replace(
        longer,
        advertisers=longer.advertisers[:10],
        missing_mass=min(longer.missing_mass + beyond, 1.0),
    )
    candidates, logits = list(IDS.values()), [0.5] * len(IDS)
    scored = (ranking.score(forecast, candidates, logits) for forecast in (longer, cut))
    for first, second in zip(*(item.candidates for item in scored), strict=True):
        assert first.status == second.status
        assert math.isclose(first.adjusted_logit, second.adjusted_logit, abs_tol=1e-5)


def test_served_logits_equal_the_heads_onnx_graph(
    server: TritonServer, retrieval: RetrievalClient, bundle: Path
) -> None:
    """Recompute the adjustment from the served features with ONNX's reference evaluator."""
    forecast = retrieval.forecast(user())
    candidates = np.array([*IDS.values(), 999_999])
    logits = np.linspace(-3, 1, len(candidates), dtype=np.float32)
    tensors = encoding.encode_forecast(forecast) | {
        contract.CANDIDATE_ADVERTISER_IDS: candidates,
        contract.BASE_LOGITS: logits,
    }
    answer = infer(server.grpc_address, contract.PRIOR_HEAD, tensors)
    feed = {
        "base_logits": logits,
        "features": answer.as_numpy(contract.PRIOR_FEATURES)[0],
        "statuses": answer.as_numpy(contract.CANDIDATE_STATUS)[0],
        "has_forecast": np.array([True]),
    }
    expected = ReferenceEvaluator(onnx.load(str(bundle / "head.onnx"))).run(None, feed)
    served = answer.as_numpy(contract.ADJUSTED_LOGITS)[0]
    np.testing.assert_allclose(served, expected[0], atol=1e-5)
    adjustments = answer.as_numpy(contract.ADJUSTMENTS)[0]
    np.testing.assert_allclose(adjustments, expected[1], atol=1e-5)
    assert (served[:-1] != logits[:-1]).any()
    assert served[-1] == logits[-1]


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_a_request_may_name_any_outputs_of_an_ensemble(server: TritonServer, ensemble: str) -> None:
    candidates = [*list(IDS.values())[:5], 999_999]
    subsets = output_subsets(ensemble, pairs=True)
    assert_subsets_are_answered(server.grpc_address, ensemble, user(), candidates, subsets)


MALFORMED: dict[str, tuple[Any, str]] = {
    "not UTF-8": (b"\xff\xfe", "USER_CONTEXT"),
    "empty": (b"", "USER_CONTEXT"),
    "too large": (b" " * (contract.MAX_CONTEXT_BYTES + 1), "USER_CONTEXT"),
    "nested too deep": (b"[" * 100_000, "USER_CONTEXT"),
    "a number too long": (b'{"as_of": ' + b"9" * 10_000 + b"}", "USER_CONTEXT"),
    "no as_of": ({"history": []}, "as_of"),
    "profile too long": (user(profile={f"key{i}": f"{i}" * 60 for i in range(90)}), "profile"),
    "event without action": (user(history=[{"time": "2024-01-01"}]), "history[0].action"),
    "lone surrogate": (b'{"as_of": "2024-03-05", "profile": {"a": "\\ud800"}}', "profile"),
}
"""The parser's own test has more; these travel through the server and its error path."""


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_context_is_an_invalid_argument_that_names_the_field(
    server: TritonServer, kind: str
) -> None:
    context, field = MALFORMED[kind]
    with pytest.raises(InferenceServerException) as caught:
        infer_context(server.grpc_address, context)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert field in caught.value.message()


def _engine_counts(server: TritonServer) -> tuple[float, float]:
    """Return how many requests the engine has answered, and in how many batches."""
    page = read_page(server)
    requests, batches = (
        page.total(name, model=contract.LLM_ENGINE)
        for name in ("nv_inference_count", "nv_inference_exec_count")
    )
    return requests, batches


def test_good_and_bad_requests_of_all_lengths_in_a_batch_get_their_own_answers(
    server: TritonServer, retrieval: RetrievalClient
) -> None:
    alone = {events: retrieval.forecast(user(events), k=5) for events in range(0, 40, 3)}
    bad = user(history=[{"time": "2024-01-01"}])

    def ask(index: int) -> Forecast | str:
        if index % 4 != 3:
            return retrieval.forecast(user(index % 40 // 3 * 3), k=5)
        with pytest.raises(InferenceServerException) as caught:
            infer_context(server.grpc_address, bad)
        return str(caught.value.message())

    before = _engine_counts(server)
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, range(160)))
    requests, batches = np.subtract(_engine_counts(server), before)
    assert batches < requests
    for index, answer in enumerate(answers):
        if index % 4 == 3:
            assert isinstance(answer, str)
            assert "history[0].action" in answer
        else:
            assert isinstance(answer, Forecast)
            expected = alone[index % 40 // 3 * 3]
            assert [a.advertiser_id for a in answer.advertisers] == [
                a.advertiser_id for a in expected.advertisers
            ]
            assert np.allclose(
                [a.log_prob for a in answer.advertisers],
                [a.log_prob for a in expected.advertisers],
                atol=1e-4,
            )


GOOD: dict[str, list[Any]] = {
    contract.INPUT_IDS: [5, 6],
    contract.INPUT_LENGTHS: [2],
    contract.REQUEST_OUTPUT_LEN: [4],
    contract.BEAM_WIDTH: [4],
    contract.END_ID: [1],
    contract.PAD_ID: [1],
    contract.RETURN_LOG_PROBS: [True],
    contract.OUTPUT_IDS: [[5, 1], [6, 1]],
    contract.SEQUENCE_LENGTH: [2, 2],
    contract.CUM_LOG_PROBS: [-1.0, -2.0],
}
CODES = {contract.LLM_ENGINE: "INVALID_ARGUMENT", contract.ADVERTISER_DECODER: "INTERNAL"}
"""Callers make the inputs of the engine; the engine makes those of the decoder."""


@pytest.mark.parametrize(
    ("model", "tensor", "values"),
    [
        (contract.LLM_ENGINE, contract.INPUT_IDS, [999_999]),
        (contract.LLM_ENGINE, contract.INPUT_IDS, [-1]),
        (contract.LLM_ENGINE, contract.INPUT_LENGTHS, [-1]),
        (contract.LLM_ENGINE, contract.INPUT_LENGTHS, [7]),
        (contract.ADVERTISER_DECODER, contract.CUM_LOG_PROBS, [-1.0]),
        (contract.ADVERTISER_DECODER, contract.CUM_LOG_PROBS, [1.0, 0]),
        (contract.ADVERTISER_DECODER, contract.SEQUENCE_LENGTH, [9, 1]),
    ],
)
def test_a_models_refusal_of_a_direct_call_names_the_tensor(
    server: TritonServer, model: str, tensor: str, values: list[Any]
) -> None:
    with pytest.raises(InferenceServerException, match=tensor) as caught:
        infer(server.grpc_address, model, GOOD | {tensor: values})
    assert caught.value.status() == f"StatusCode.{CODES[model]}"


def test_predict_and_rank_report_the_unused_parts_of_a_context(
    server: TritonServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A time without a zone is UTC and may be after an ``as_of`` with a zone."""
    late = {"time": "2024-03-05T09:00", "action": "purchase", "advertiser": "Acme"}
    strange = {"time": "2024-02-01", "action": "purchase", "advertiser": "ACME"}
    known = {"time": "2024-02-02", "action": "purchase", "advertiser": "Ze\u0301phyr\u200b"}
    context = user(
        history=[strange, known, late],
        profile={"age": "20s", "Age ": "20s", "shoe size": 42},
        as_of="2024-03-05T10:00+09:00",
    )
    path, candidates = tmp_path / "user.json", tmp_path / "candidates.json"
    path.write_text(json.dumps(context), encoding="utf-8")
    candidates.write_text('[{"advertiser_id": 100, "base_logit": -2}]', encoding="utf-8")
    options = ["--url", server.grpc_address, "--user", str(path)]
    report = (
        "Context: 1 of 2 advertisers known, 2 of 3 profile keys unknown, "
        "1 of 3 events after as_of (a time without a zone is UTC)"
    )
    before = read_settled(server)
    assert main(["predict", *options]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == report
    assert main(["rank", *options, "--candidates", str(candidates)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == report
    # Each command renders the user twice: for the answer and for the report. At least these counts:
    # metrics of earlier tests may arrive late.
    expected = {
        ("adprior_events_total", "model", contract.TOKENIZER): 12,
        ("adprior_dropped_events_total", "reason", "after_as_of"): 4,
        ("adprior_history_advertisers_total", "known", "true"): 4,
        ("adprior_history_advertisers_total", "known", "false"): 4,
        ("adprior_profile_keys_total", "use", "known"): 4,
        ("adprior_profile_keys_total", "use", "unknown"): 8,
    }
    await_page(
        server,
        lambda page: all(
            page.total(name, **{label: value}) - before.total(name, **{label: value}) >= number
            for (name, label, value), number in expected.items()
        ),
    )


def test_the_server_refuses_a_k_out_of_range(server: TritonServer) -> None:
    tensors = {contract.USER_CONTEXT: context_tensor(user()), contract.TOP_K: [0]}
    with pytest.raises(InferenceServerException, match="TOP_K: found 0, expected 1 to 1000"):
        infer(server.grpc_address, contract.ADVERTISER_RETRIEVAL, tensors)
