from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from adprior_build.head.onnx_head import write_identity_head
from adprior_runtime import contract
from adprior_runtime.bundle import (
    ADVERTISERS_DIRECTORY,
    HEAD_FILE,
    MANIFEST,
    PROMPT_FILE,
    TOKENIZER_FILE,
    Bundle,
    Manifest,
    hash_file,
)
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.engines.ranked_tokens import RankedTokens
from adprior_runtime.errors import DeviceFullError
from adprior_runtime.forecast.search_step import SearchStep
from adprior_runtime.prompt.context import parse_context
from adprior_runtime.prompt.renderer import PromptRenderer
from support.fake_backend import InferenceResponse, Request, TritonError, load_model, shown_metrics
from support.paths import DEMO

USERS = sorted((DEMO / "users").glob("*.json"))
BEAMS = (contract.OUTPUT_IDS, contract.SEQUENCE_LENGTH, contract.CUM_LOG_PROBS)
PROOF = (contract.PROVED_TOP_K, contract.FRONTIER_LOG_MASS)
SCORED = (contract.SCORED_LOG_PROBS, contract.SCORED_EXACT)
Tensors = dict[str, npt.NDArray[Any]]
MakeInputs = Callable[..., Tensors]
Ids = npt.NDArray[np.int64]


@pytest.fixture(scope="module")
def engine(_backend: None, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model ``llm_engine``, with the tiny bundle."""
    from adprior_runtime.triton.llm_engine import TritonPythonModel  # noqa: PLC0415

    return load_model(TritonPythonModel, tmp_path_factory.mktemp("models"), tiny_bundle)


@pytest.fixture(scope="module")
def decoder(_backend: None, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model ``advertiser_decoder``, with the tiny bundle."""
    from adprior_runtime.triton.advertiser_decoder import TritonPythonModel  # noqa: PLC0415

    return load_model(TritonPythonModel, tmp_path_factory.mktemp("models"), tiny_bundle)


@pytest.fixture(scope="module")
def head(_backend: None, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model ``prior_head``, with the tiny bundle."""
    from adprior_runtime.triton.prior_head import TritonPythonModel  # noqa: PLC0415

    return load_model(TritonPythonModel, tmp_path_factory.mktemp("models"), tiny_bundle)


@pytest.fixture(scope="module")
def make_inputs(tiny_bundle: Path) -> MakeInputs:
    """Return a function that makes the engine's inputs for one of `USERS`."""
    renderer = PromptRenderer.load(tiny_bundle / PROMPT_FILE, tiny_bundle / TOKENIZER_FILE)
    manifest = Manifest.load(tiny_bundle / MANIFEST)

    def make(user: int, **changed: Any) -> Tensors:
        token_ids = renderer.render(parse_context(USERS[user].read_bytes())).token_ids
        values: dict[str, Any] = {
            contract.INPUT_IDS: token_ids,
            contract.INPUT_LENGTHS: [len(token_ids)],
            contract.REQUEST_OUTPUT_LEN: [manifest.longest_name_tokens],
            contract.BEAM_WIDTH: [manifest.beam_width],
            contract.END_ID: [renderer.end_id],
            contract.PAD_ID: [renderer.end_id],
        }
        tensors = {name: np.array(item, np.int32) for name, item in (values | changed).items()}
        return tensors | {contract.RETURN_LOG_PROBS: np.array([True])}

    return make


@pytest.fixture
def ids(tiny_bundle: Path) -> Ids:
    """The catalogue's advertiser ids."""
    stored: Ids = np.load(tiny_bundle / ADVERTISERS_DIRECTORY / "ids.npy")
    return stored


def _request(tensors: Tensors, *outputs: str, cancelled_after: int | None = None) -> Request:
    """A request that becomes cancelled after this many calls of ``is_cancelled``."""
    asked = iter(range(10**6))
    return Request(
        tensors=tensors,
        outputs=outputs,
        is_cancelled=lambda: cancelled_after is not None and next(asked) >= cancelled_after,
    )


def _refusal(response: InferenceResponse) -> tuple[int, str]:
    assert response.error is not None
    assert not response.output_tensors
    return response.error.code, str(response.error)


@pytest.mark.parametrize(
    ("instances", "parameters", "threads"),
    [(1, {}, 6), (2, {}, 3), (9, {}, 1), (2, {"threads": {"string_value": "4"}}, 4)],
)
def test_instances_share_the_processors_unless_threads_are_set(
    engine: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    instances: int,
    parameters: Any,
    threads: int,
    tiny_bundle: Path,
) -> None:
    asked: list[int] = []

    class Asked(OnnxEngine):
        def __init__(self, *arguments: Any, threads: int, **settings: Any) -> None:
            asked.append(threads)
            super().__init__(*arguments, threads=1, **settings)

    monkeypatch.setattr("adprior_runtime.cpu_count.available_processors", lambda: 6)
    monkeypatch.setattr("adprior_runtime.engines.onnx.OnnxEngine", Asked)
    config = {"instance_group": [{"count": instances}], "parameters": parameters}
    load_model(type(engine), tmp_path, tiny_bundle, config)
    assert asked == [threads]


def test_the_engine_has_searched_before_it_is_ready(
    engine: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_bundle: Path
) -> None:
    passes: list[tuple[str, int]] = []

    class Watched(OnnxEngine):
        def prefill(self, prompt_ids: Any, *rest: Any) -> Any:
            passes.append(("prefill", len(prompt_ids)))
            return super().prefill(prompt_ids, *rest)

        def extend(self, state: Any, token_ids: Any, *rest: Any, **options: Any) -> Any:
            passes.append(("extend", len(token_ids)))
            return super().extend(state, token_ids, *rest, **options)

    monkeypatch.setattr("adprior_runtime.engines.onnx.OnnxEngine", Watched)
    load_model(type(engine), tmp_path, tiny_bundle)
    manifest = Bundle.open(tiny_bundle).manifest
    (head, first), (prefill, length), *extended = passes
    assert (head, first) == ("prefill", len(manifest.prompt_head_ids))
    assert prefill == "prefill"
    assert length > len(manifest.prompt_head_ids)
    assert {kind for kind, _ in extended} == {"extend"}
    assert sum(tokens for _, tokens in extended) <= manifest.token_budget


def test_a_short_model_is_warmed_up_with_a_prompt_that_fits(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    step = SearchStep(bundle, threads=1)
    read: list[int] = []

    class Short(OnnxEngine):
        def prefill(self, prompt_ids: Any, *rest: Any) -> Any:
            read.append(len(prompt_ids))
            return super().prefill(prompt_ids, *rest)

    step._engine = Short.of_bundle(bundle, threads=1)
    step._engine.max_positions = 16
    step.warm_up()
    assert read[-1] == 16 - bundle.manifest.longest_name_tokens - 1


@pytest.mark.parametrize("cancelled_after", [0, 1])
def test_requests_of_a_batch_do_not_affect_each_other(
    engine: Any, cancelled_after: int, make_inputs: MakeInputs
) -> None:
    wanted = (*BEAMS, *PROOF)
    good = [_request(make_inputs(user), *wanted) for user in (0, 1)]
    alone = [engine.execute([request])[0].values() for request in good]
    batch = [
        _request(make_inputs(2, input_lengths=[10_000]), *wanted),
        good[0],
        _request(make_inputs(2), *wanted, cancelled_after=cancelled_after),
        _request(make_inputs(2, input_ids=[-7] * 500, input_lengths=[500]), *wanted),
        good[1],
        _request(make_inputs(0, beam_width=[0]), *wanted),
    ]
    too_long, first, cancelled, impossible, second, narrow = engine.execute(batch)
    for response, expected in ((first, alone[0]), (second, alone[1])):
        assert response.values().keys() == expected.keys() == set(wanted)
        for name, values in response.values().items():
            np.testing.assert_array_equal(values, expected[name])
    assert _refusal(cancelled) == (TritonError.CANCELLED, "the request was cancelled")
    for response, field in ((too_long, "input_lengths"), (impossible, "input_ids")):
        assert _refusal(response)[0] == TritonError.INVALID_ARG
        assert _refusal(response)[1].startswith(f"{field}: found ")
    assert _refusal(narrow)[1] == "beam_width: found 0, expected 1 to 256"


def test_a_search_stops_at_its_callers_deadline(engine: Any, make_inputs: MakeInputs) -> None:
    request = Request(tensors=make_inputs(0), outputs=BEAMS, timeout_us=1)
    patient = Request(tensors=make_inputs(0), outputs=BEAMS, timeout_us=60_000_000)
    late, answered = engine.execute([request, patient])
    assert _refusal(late) == (TritonError.CANCELLED, "the request was cancelled")
    assert answered.values()


@pytest.mark.parametrize("width", [-1, 0, 257, 2**31 - 1])
def test_a_beam_of_impossible_width_is_refused(
    engine: Any, width: int, make_inputs: MakeInputs
) -> None:
    (response,) = engine.execute([_request(make_inputs(0, beam_width=[width]), *BEAMS)])
    expected = (TritonError.INVALID_ARG, f"beam_width: found {width}, expected 1 to 256")
    assert _refusal(response) == expected


@pytest.mark.parametrize("top_k", [-1, 0, 257, 1000, 2**31 - 1])
def test_every_model_refuses_a_top_k_out_of_range(
    engine: Any, decoder: Any, top_k: int, make_inputs: MakeInputs
) -> None:
    asked = {contract.TOP_K: np.array([top_k], np.int32)}
    beams = engine.execute([_request(make_inputs(0), *BEAMS)])[0].values()
    expected = f"TOP_K: found {top_k}, expected 1 to 256, the bundle's max_top_k"
    for model, tensors in ((engine, make_inputs(0)), (decoder, beams)):
        (response,) = model.execute([_request(tensors | asked, contract.ADVERTISER_IDS)])
        assert _refusal(response) == (TritonError.INVALID_ARG, expected)


def test_a_deployment_limits_top_k(
    engine: Any, monkeypatch: pytest.MonkeyPatch, make_inputs: MakeInputs
) -> None:
    (response,) = engine.execute([_request(make_inputs(0, TOP_K=[256]), *BEAMS)])
    assert len(response.values()[contract.CUM_LOG_PROBS]) >= 256
    monkeypatch.setattr(engine._step, "limits", replace(engine._step.limits, max_top_k=5))
    (response,) = engine.execute([_request(make_inputs(0, TOP_K=[6]), *BEAMS)])
    assert _refusal(response)[1] == "TOP_K: found 6, expected 1 to 5, the bundle's max_top_k"


@pytest.mark.parametrize("width", [1, 256])
def test_a_beam_of_extreme_width_gives_the_k_best(
    engine: Any, width: int, make_inputs: MakeInputs
) -> None:
    requests = [
        _request(make_inputs(0, beam_width=[item], TOP_K=[5]), *BEAMS) for item in (width, 32)
    ]
    found, expected = (response.values() for response in engine.execute(requests))
    np.testing.assert_allclose(
        found[contract.CUM_LOG_PROBS][:5], expected[contract.CUM_LOG_PROBS][:5], atol=1e-3
    )


def test_candidates_are_scored_with_the_search(
    engine: Any, make_inputs: MakeInputs, ids: Ids
) -> None:
    tensors = make_inputs(1) | {contract.CANDIDATE_ADVERTISER_IDS: np.array([*ids[[3, 70, 3]], -5])}
    (response,) = engine.execute([_request(tensors, *SCORED)])
    values = response.values()
    assert values[contract.SCORED_EXACT].tolist() == [True, True, True, False]
    log_probs = values[contract.SCORED_LOG_PROBS]
    assert log_probs[0] == log_probs[2] != log_probs[1]
    assert log_probs[3] == -np.inf


def test_candidates_may_all_be_off_the_catalogue(engine: Any, make_inputs: MakeInputs) -> None:
    tensors = make_inputs(1) | {contract.CANDIDATE_ADVERTISER_IDS: np.array([-5, -6])}
    values = engine.execute([_request(tensors, *SCORED)])[0].values()
    assert values[contract.SCORED_LOG_PROBS].tolist() == [-np.inf, -np.inf]
    assert not values[contract.SCORED_EXACT].any()


class BrokenEngine:
    """A language model that returns invalid numbers."""

    def prefill(
        self, _: object, next_tokens: npt.NDArray[np.int32], *__: object
    ) -> tuple[None, RankedTokens]:
        return None, RankedTokens.of(np.full(len(next_tokens), np.nan, dtype=np.float32))


def test_a_model_that_computes_no_probabilities_is_an_internal_error(
    engine: Any, monkeypatch: pytest.MonkeyPatch, make_inputs: MakeInputs
) -> None:
    monkeypatch.setattr(engine._step, "_engine", BrokenEngine())
    (response,) = engine.execute([_request(make_inputs(0), *BEAMS)])
    code, message = _refusal(response)
    assert code == TritonError.INTERNAL
    assert message.startswith("the language model's log-probabilities: found NaN or +inf in ")


class FullEngine(BrokenEngine):
    """Has no memory for a pass."""

    def prefill(self, *_: object) -> Any:
        raise DeviceFullError("device cuda: out of memory")


def test_a_device_without_memory_is_unavailable_so_that_clients_ask_the_next_server(
    engine: Any, monkeypatch: pytest.MonkeyPatch, make_inputs: MakeInputs
) -> None:
    monkeypatch.setattr(engine._step, "_engine", FullEngine())
    (response,) = engine.execute([_request(make_inputs(0), *BEAMS)])
    assert _refusal(response) == (TritonError.UNAVAILABLE, "device cuda: out of memory")


@pytest.fixture(scope="module")
def beams(engine: Any, make_inputs: MakeInputs) -> Tensors:
    """The engine's answer to one user."""
    (response,) = engine.execute([_request(make_inputs(0), *BEAMS, *PROOF)])
    tensors: Tensors = response.values()
    return tensors


@pytest.mark.parametrize("name", [*BEAMS, contract.FRONTIER_LOG_MASS])
def test_impossible_beams_are_the_engines_fault(decoder: Any, beams: Tensors, name: str) -> None:
    spoilt = beams | {name: beams[name][:-1] if name in BEAMS else beams[name] * np.float32(np.nan)}
    bad, good = decoder.execute([_request(b, contract.EXACT) for b in (spoilt, beams)])
    code, message = _refusal(bad)
    assert code == TritonError.INTERNAL
    assert message.split(":")[0] in {name, contract.OUTPUT_IDS}
    assert good.values()


def test_tokens_of_no_vocabulary_name_no_advertiser(decoder: Any, beams: Tensors) -> None:
    stock = {name: beams[name] for name in BEAMS}
    stock[contract.OUTPUT_IDS] = np.full_like(beams[contract.OUTPUT_IDS], 2**31 - 1)
    stock[contract.OUTPUT_IDS][0] = -7
    (response,) = decoder.execute([_request(stock, contract.ADVERTISER_IDS)])
    assert response.values()[contract.ADVERTISER_IDS].tolist() == []


@pytest.mark.parametrize("name", BEAMS)
def test_a_missing_input_that_triton_did_not_notice_is_refused(
    decoder: Any, beams: Tensors, name: str
) -> None:
    """Triton only counts inputs, so that an optional input can hide a missing one."""
    bad = {key: value for key, value in beams.items() if key != name}
    (response,) = decoder.execute([_request(bad, contract.EXACT)])
    assert _refusal(response) == (TritonError.INVALID_ARG, f"{name}: missing")


def test_a_frontier_of_no_mass_is_valid(decoder: Any, beams: Tensors) -> None:
    nothing = beams | {contract.FRONTIER_LOG_MASS: np.full(1, -np.inf, dtype=np.float32)}
    (response,) = decoder.execute([_request(nothing, contract.EXACT, contract.ADVERTISER_IDS)])
    assert response.values()[contract.EXACT].tolist() == [True]
    assert len(response.values()[contract.ADVERTISER_IDS]) == 20


@pytest.mark.parametrize("asked", [{"TOP_K": 19}, {"TOP_K": 21}, {"EXCLUDED_ADVERTISER_IDS": 0}])
def test_a_proof_of_another_request_proves_nothing(
    decoder: Any, beams: Tensors, asked: dict[str, int]
) -> None:
    outputs = (contract.EXACT, contract.ADVERTISER_IDS)
    own = decoder.execute([_request(beams, *outputs)])[0].values()
    assert own[contract.EXACT].tolist() == [True]
    values = asked | {"EXCLUDED_ADVERTISER_IDS": int(own[contract.ADVERTISER_IDS][0])}
    changed = {name: np.array([values[name]]) for name in asked}
    (response,) = decoder.execute([_request(beams | changed, *outputs)])
    assert response.values()[contract.EXACT].tolist() == [False]


def test_stock_beams_are_completed_and_what_is_dropped_is_counted(
    decoder: Any, tiny_bundle: Path, ids: Ids
) -> None:
    """Beams of TensorRT-LLM have no proof, and finished ones have no terminator."""
    trie = Trie.load(tiny_bundle / "trie")
    (path,), _ = trie.paths(trie.leaf_nodes[[7]])
    name = [token for token in path.tolist() if token != trie.terminator]
    longest = trie.depth
    cut_off, stranger = [name[0]] * longest, [trie.terminator, trie.terminator]
    tokens = np.full((4, longest + 1), -1, dtype=np.int32)
    beams = [name, name, cut_off, stranger]
    for row, beam in enumerate(beams):
        tokens[row, : len(beam)] = beam
    tensors = {
        contract.OUTPUT_IDS: tokens,
        contract.SEQUENCE_LENGTH: np.array([len(beam) for beam in beams], np.int32),
        contract.CUM_LOG_PROBS: np.log([0.25, 0.25, 0.5, 0.125]).astype(np.float32),
    }
    dropped = shown_metrics(decoder, "adprior_dropped_beams_total")
    (total,) = shown_metrics(decoder, "adprior_beams_total").values()
    outputs = (contract.ADVERTISER_IDS, contract.LOG_PROBS, contract.EXACT, contract.MISSING_MASS)
    values = decoder.execute([_request(tensors, *outputs)])[0].values()
    assert values[contract.ADVERTISER_IDS].tolist() == [ids[trie.lookup([*name, trie.terminator])]]
    np.testing.assert_allclose(np.exp(values[contract.LOG_PROBS]), [0.25], rtol=1e-6)
    assert values[contract.EXACT].tolist() == [False]
    np.testing.assert_allclose(values[contract.MISSING_MASS], [0.625], rtol=1e-6)
    assert shown_metrics(decoder, "adprior_dropped_beams_total") == {
        reason: dropped[reason] + 1 for reason in ("incomplete", "off_catalogue", "duplicate")
    }
    assert shown_metrics(decoder, "adprior_beams_total") == {"": total + 4}


def test_beams_without_log_probabilities_are_an_internal_error_that_is_logged(
    decoder: Any, beams: Tensors, caplog: pytest.LogCaptureFixture
) -> None:
    """Such an error alerts an operator, who looks for the reason in the log."""
    spoilt = {name: beams[name] for name in BEAMS}
    spoilt[contract.CUM_LOG_PROBS] = np.zeros_like(beams[contract.CUM_LOG_PROBS])
    (response,) = decoder.execute([_request(spoilt, contract.ADVERTISER_IDS)])
    code, message = _refusal(response)
    assert code == TritonError.INTERNAL
    assert message.startswith("cum_log_probs: ")
    assert caplog.messages == [f"advertiser_decoder: ModelOutputError: {message}"]


def test_a_request_that_is_wrong_is_not_logged(
    decoder: Any, beams: Tensors, caplog: pytest.LogCaptureFixture
) -> None:
    asked = beams | {contract.TOP_K: np.array([0], np.int32)}
    (response,) = decoder.execute([_request(asked, contract.ADVERTISER_IDS)])
    assert _refusal(response)[0] == TritonError.INVALID_ARG
    assert caplog.messages == []


RANKED_WITH = (
    contract.ADVERTISER_IDS,
    contract.LOG_PROBS,
    contract.EXACT,
    contract.MISSING_MASS,
)


@pytest.fixture
def ranking(ids: Ids) -> Tensors:
    """A forecast and two candidates."""
    return {
        contract.ADVERTISER_IDS: ids[:3],
        contract.LOG_PROBS: np.array([-1, -2, -3], dtype=np.float32),
        contract.MISSING_MASS: np.array([0.25], dtype=np.float32),
        contract.EXACT: np.array([True]),
        contract.CANDIDATE_ADVERTISER_IDS: ids[2:4],
        contract.BASE_LOGITS: np.array([0.5, -0.5], dtype=np.float32),
    }


def test_the_head_returns_the_forecast_that_it_ranked_with(head: Any, ranking: Tensors) -> None:
    unsaid = {name: values for name, values in ranking.items() if name != contract.EXACT}
    responses = head.execute([_request(tensors, *RANKED_WITH) for tensors in (ranking, unsaid)])
    whole, without = (response.values() for response in responses)
    for name in RANKED_WITH:
        np.testing.assert_array_equal(whole[name], ranking[name])
    assert without[contract.EXACT].tolist() == [False]


@pytest.mark.parametrize("name", SCORED)
def test_scores_of_other_candidates_are_the_engines_fault(
    head: Any, ranking: Tensors, name: str
) -> None:
    scored: Tensors = {
        contract.SCORED_LOG_PROBS: np.array([-2, -4], dtype=np.float32),
        contract.SCORED_EXACT: np.array([True, True]),
    }
    spoilt = ranking | scored | {name: scored[name][:1]}
    requests = [_request(t, contract.ADJUSTED_LOGITS) for t in (spoilt, ranking | scored)]
    bad, good = head.execute(requests)
    code, message = _refusal(bad)
    assert code == TritonError.INTERNAL
    assert message.startswith(f"{name}: found shape (1,), expected (2,)")
    assert np.isfinite(good.values()[contract.ADJUSTED_LOGITS]).all()


@pytest.mark.usefixtures("_backend")
@pytest.mark.parametrize(("fitted", "limit"), [(True, 2.0), (False, 0.0)])
def test_a_head_that_was_never_fitted_reports_a_limit_of_0(
    tmp_path: Path, fitted: bool, limit: float, tiny_bundle: Path, ids: Ids
) -> None:
    """The limit shows it, so that clients need no other tensor."""
    from adprior_runtime.triton.prior_head import TritonPythonModel  # noqa: PLC0415

    place = tiny_bundle if fitted else _without_fitted_head(tiny_bundle, tmp_path / "bundle")
    head = load_model(TritonPythonModel, tmp_path, place)
    tensors: Tensors = {
        contract.ADVERTISER_IDS: ids[:2],
        contract.LOG_PROBS: np.array([-1, -2], np.float32),
        contract.MISSING_MASS: np.array([0.4], np.float32),
        contract.CANDIDATE_ADVERTISER_IDS: ids[:2],
        contract.BASE_LOGITS: np.array([0.5, -0.5], np.float32),
    }
    (response,) = head.execute(
        [_request(tensors, contract.ADJUSTED_LOGITS, contract.ADJUSTMENT_LIMIT)]
    )
    answer = response.values()
    assert answer[contract.ADJUSTMENT_LIMIT].tolist() == [limit]
    moved = answer[contract.ADJUSTED_LOGITS] != tensors[contract.BASE_LOGITS]
    assert moved.any() == fitted


def _without_fitted_head(source: Path, place: Path) -> Path:
    """Write the head's files of a bundle, with the head that a first build writes."""
    shutil.copytree(source / ADVERTISERS_DIRECTORY, place / ADVERTISERS_DIRECTORY)
    manifest = Manifest.load(source / MANIFEST)
    write_identity_head(
        place / HEAD_FILE,
        forecast_k=manifest.forecast_k,
        engine=manifest.engine,
        catalogue_fingerprint=manifest.catalogue_fingerprint,
    )
    files = {**manifest.files, HEAD_FILE: hash_file(place / HEAD_FILE)}
    text = replace(manifest, files=files).sealed().to_json()
    (place / MANIFEST).write_text(text, encoding="utf-8")
    return place
