"""The metrics' definitions, and what each model counts of its requests."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adprior_runtime import contract
from adprior_runtime.bundle import Manifest
from adprior_runtime.search.rounding import margin_nats
from adprior_runtime.triton.metrics import METRICS, Kind, metrics_of
from support.fake_backend import Request, TritonError, load_model, shown_metrics

pytestmark = pytest.mark.usefixtures("_backend")

MODELS = (
    contract.TOKENIZER, contract.LLM_ENGINE, contract.ADVERTISER_DECODER, contract.PRIOR_HEAD,
)  # fmt: skip


def test_names_follow_prometheus() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"adprior_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert metric.description.endswith(".")
        assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets)
        assert len(metric.values) <= 10
        assert metric.models
        assert set(metric.models) <= set(MODELS)
    assert {metric.name for model in MODELS for metric in metrics_of(model)} == set(names)


@pytest.fixture
def tokenizer(tiny_bundle: Path, tmp_path: Path) -> Any:
    from adprior_runtime.triton.tokenizer import TritonPythonModel  # noqa: PLC0415

    return load_model(TritonPythonModel, tmp_path, tiny_bundle)


def _ask(model: Any, context: object, *outputs: str) -> Any:
    raw = context if isinstance(context, bytes) else json.dumps(context).encode()
    tensors = {contract.USER_CONTEXT: np.array([raw], dtype=np.object_)}
    (response,) = model.execute(
        [Request(tensors=tensors, outputs=outputs or (contract.INPUT_IDS,))]
    )
    return response


def test_the_tokenizer_counts_events_and_tokens(tokenizer: Any) -> None:
    late = {"time": "2024-06-02", "action": "purchase"}
    early = [{"time": f"2024-0{month}-01", "action": "purchase"} for month in range(1, 6)]
    answer = _ask(tokenizer, {"as_of": "2024-06-01", "history": [*early, late]})
    assert shown_metrics(tokenizer, "adprior_events_total") == {"": 6}
    assert shown_metrics(tokenizer, "adprior_dropped_events_total") == {
        "after_as_of": 1,
        "over_budget": 0,
    }
    tokens = len(answer.values()[contract.INPUT_IDS])
    assert shown_metrics(tokenizer, "adprior_prompt_tokens_total") == {"": tokens}
    long = [{"time": "2024-01-01", "action": "purchase", "advertiser": "Purina"}] * 900
    _ask(tokenizer, {"as_of": "2024-06-01", "history": long})
    assert shown_metrics(tokenizer, "adprior_events_total") == {"": 906}
    dropped = shown_metrics(tokenizer, "adprior_dropped_events_total")
    assert 0 < dropped["over_budget"] < 900


def _counts(answer: Any) -> dict[str, int]:
    found = answer.values()[contract.CONTEXT_USE].tolist()
    return {name: found[place] for name, place in contract.ContextCount.__members__.items()}


def test_the_tokenizer_reports_how_much_of_a_context_is_used(tokenizer: Any) -> None:
    names = ["Purina", "PURINA!", "nobody at all", "Purina"]
    history = [{"time": "2024-05-01", "action": "purchase", "advertiser": n} for n in names]
    context = {"as_of": "2024-06-01", "history": history, "profile": {"age": "30s"}}
    outputs = (contract.CONTEXT_USE, contract.BUNDLE_ID, contract.ANSWER_VERSION)
    counts = _counts(_ask(tokenizer, context, *outputs))
    assert counts["EVENTS"] == 4
    assert (counts["ADVERTISERS"], counts["KNOWN_ADVERTISERS"]) == (3, 1)
    assert counts["PROFILE_KEYS"] == 1
    shown = shown_metrics(tokenizer, "adprior_history_advertisers_total")
    assert shown == {"true": 1, "false": 2}


def test_the_tokenizer_states_the_margin_of_a_proof(tokenizer: Any, tiny_bundle: Path) -> None:
    answer = _ask(tokenizer, {"as_of": "2024-06-01"}, contract.PROOF_MARGIN)
    expected = margin_nats(Manifest.load(tiny_bundle / "manifest.json"))
    assert answer.values()[contract.PROOF_MARGIN].tolist() == pytest.approx([expected])


@pytest.fixture
def _apart() -> Iterator[None]:
    """Remove the metrics of another bundle's model, so that no later test sees them."""
    yield
    sys.modules["triton_python_backend_utils"].MetricFamily.shown.clear()


def _bundle_with(place: Path, source: Path, **changed: Any) -> Path:
    """Return a bundle of the source's tokenizer files, with a manifest of its own."""
    place.mkdir()
    for name in ("tokenizer.json", "prompt.json"):
        (place / name).write_bytes((source / name).read_bytes())
    manifest = Manifest.load(source / "manifest.json")
    old = {key: value for key, value in manifest.training.items() if key != "profile_keys"}
    training = {**old, **changed}
    text = replace(manifest, training=training).sealed().to_json()
    (place / "manifest.json").write_text(text, encoding="utf-8")
    return place


@pytest.mark.usefixtures("_apart")
def test_profile_keys_are_known_if_the_bundle_records_those_of_training(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    from adprior_runtime.triton.tokenizer import TritonPythonModel  # noqa: PLC0415

    context = {"as_of": "2024-06-01", "profile": {"age": "30s", " age": "4", "Brand": "x"}}
    bundle = _bundle_with(tmp_path / "new", tiny_bundle, profile_keys=["age", "gender"])
    model = load_model(TritonPythonModel, tmp_path / "served", bundle)
    assert _counts(_ask(model, context, contract.CONTEXT_USE))["UNKNOWN_KEYS"] == 1
    shown = shown_metrics(model, "adprior_profile_keys_total")
    assert shown == {"known": 2, "unknown": 1, "denied": 0}


@pytest.mark.usefixtures("_apart")
def test_a_bundle_of_an_earlier_version_leaves_unknown_counts_out(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    from adprior_runtime.triton.tokenizer import TritonPythonModel  # noqa: PLC0415

    bundle = _bundle_with(tmp_path / "old", tiny_bundle)
    model = load_model(TritonPythonModel, tmp_path / "served", bundle)
    context = {
        "as_of": "2024-06-01",
        "profile": {"Brand": "x"},
        "history": [{"time": "2024-05-01", "action": "purchase", "advertiser": "Purina"}],
    }
    counts = _counts(_ask(model, context, contract.CONTEXT_USE))
    assert counts["KNOWN_ADVERTISERS"] == counts["UNKNOWN_KEYS"] == contract.UNCOUNTED
    assert sum(shown_metrics(model, "adprior_history_advertisers_total").values()) == 0
    assert sum(shown_metrics(model, "adprior_profile_keys_total").values()) == 0


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        (b"x" * (contract.MAX_CONTEXT_BYTES + 1), "too_large"),
        (b"\xff", "not_json"),
        (b"{", "not_json"),
        (b"[" * 100_000, "not_json"),
        (b'{"as_of": NaN}', "not_json"),
        ({"history": []}, "field"),
        ({"as_of": "no time"}, "field"),
        ({"as_of": "2024-01-01", "profile": {"a": []}}, "field"),
        ({"as_of": "2024-01-01", "profile": {"a": "\ud800"}}, "field"),
        (
            {"as_of": "2024-01-01", "profile": {f"{i}": "a word" * 9 for i in range(900)}},
            "over_budget",
        ),
    ],
)
def test_a_refused_context_is_counted_by_reason(
    tokenizer: Any, context: object, reason: str
) -> None:
    response = _ask(tokenizer, context)
    assert response.error.code == TritonError.INVALID_ARG
    shown = shown_metrics(tokenizer, "adprior_invalid_requests_total")
    assert {name for name, number in shown.items() if number} == {reason}
    assert shown[reason] == 1
    assert not any(shown_metrics(tokenizer, "adprior_failed_requests_total").values())


def test_an_internal_error_is_counted(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "_step", None)
    assert _ask(tokenizer, {"as_of": "2024-01-01"}).error.code == TritonError.INTERNAL
    shown = shown_metrics(tokenizer, "adprior_failed_requests_total")
    assert shown == {"internal": 1, "cancelled": 0}


def test_the_head_counts_candidates_by_status(tiny_bundle: Path, tmp_path: Path) -> None:
    from adprior_runtime.triton.prior_head import TritonPythonModel  # noqa: PLC0415

    head = load_model(TritonPythonModel, tmp_path, tiny_bundle)
    ids = np.load(tiny_bundle / "advertisers" / "ids.npy")
    forecast = {
        contract.ADVERTISER_IDS: ids[:2],
        contract.LOG_PROBS: np.array([-1, -2], np.float32),
        contract.MISSING_MASS: np.array([0.4], np.float32),
    }

    def rank(*candidates: int) -> None:
        logits = np.zeros(len(candidates), np.float32)
        tensors = forecast | {
            contract.CANDIDATE_ADVERTISER_IDS: np.array(candidates, np.int64),
            contract.BASE_LOGITS: logits,
            contract.EXACT: np.array([True]),
        }
        (response,) = head.execute([Request(tensors=tensors, outputs=(contract.ADJUSTED_LOGITS,))])
        assert response.error is None

    rank(int(ids[0]), int(ids[1]), -5)
    rank(int(ids[0]), int(ids[9]))
    rank()
    assert shown_metrics(head, "adprior_candidates_total") == {
        "exact": 3,
        "upper_bound": 1,
        "not_in_catalogue": 1,
    }
    assert shown_metrics(head, "adprior_answers_total") == {"true": 2, "false": 1}


def test_the_bundle_id_is_a_metric(tokenizer: Any, tiny_bundle: Path) -> None:
    bundle_id = json.loads((tiny_bundle / "manifest.json").read_text())["bundle_id"]
    assert shown_metrics(tokenizer, "adprior_bundle_info") == {bundle_id: 1}


def test_a_model_answers_without_metrics(
    tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from adprior_runtime.triton.tokenizer import TritonPythonModel  # noqa: PLC0415

    refused = sys.modules["triton_python_backend_utils"].MetricFamily.refused
    refused.update(metric.name for metric in METRICS)
    try:
        model = load_model(TritonPythonModel, tmp_path, tiny_bundle)
    finally:
        refused.clear()
    assert "tokenizer: the server takes no metrics" in caplog.text
    assert _ask(model, {"as_of": "2024-01-01"}).error is None
    assert _ask(model, b"{").error.code == TritonError.INVALID_ARG
    model.finalize()


def test_the_last_counts_are_passed_on_when_a_model_ends(tokenizer: Any) -> None:
    before = _handed_over("adprior_prompt_tokens_total")
    _ask(tokenizer, {"as_of": "2024-01-01", "history": []})
    tokenizer.finalize()
    assert _handed_over("adprior_prompt_tokens_total") > before


def _handed_over(name: str) -> float:
    shown = sys.modules["triton_python_backend_utils"].MetricFamily.shown
    return float(sum(shown[name].values()))
