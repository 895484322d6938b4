"""The stand-in for the backend ``tensorrtllm`` keeps the real one's contract."""

from __future__ import annotations

import importlib
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adprior_runtime import contract
from adprior_runtime.bundle import ONNX_MODEL_FILE, PROMPT_FILE, TOKENIZER_FILE
from adprior_runtime.contract import Target
from adprior_runtime.engines.onnx import OnnxEngine
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.repository.model_configs import parse_config, render
from stand_ins.engine_files import MOUNT_VARIABLE, add_engine
from support.fake_backend import Request, TritonError
from support.table_engine import TableEngine

VOCABULARY, END = 6, 0
OUTPUTS = (contract.OUTPUT_IDS, contract.SEQUENCE_LENGTH, contract.CUM_LOG_PROBS)
Tensors = dict[str, npt.NDArray[Any]]


@pytest.fixture(scope="module")
def stand_in(_backend: None) -> Any:
    """Return the stand-in's module, which needs the fake backend for its import."""
    return importlib.import_module("stand_ins.tensorrtllm.model")


def _truth(engine: TableEngine, length: int) -> dict[tuple[int, ...], float]:
    """Return each sequence's log-probability: ended within ``length`` tokens, or cut there."""
    tokens = range(1, VOCABULARY)
    ended = [
        (*path, END) for size in range(length) for path in itertools.product(tokens, repeat=size)
    ]
    paths = [*ended, *itertools.product(tokens, repeat=length)]
    return {path: engine.path_log_prob(path) for path in paths}


@settings(max_examples=40)
@given(
    seed=st.integers(0, 999),
    length=st.integers(1, 3),
    width=st.integers(1, 40),
    scale=st.sampled_from([0.5, 3.0]),
)
def test_beams_are_distinct_sorted_and_have_their_own_log_probabilities(
    stand_in: Any, seed: int, length: int, width: int, scale: float
) -> None:
    engine = TableEngine(VOCABULARY, seed=seed, scale=scale)
    beams = stand_in.search_beams(
        engine, VOCABULARY, (2, 3), width=width, length=length, end_id=END
    )
    truth = _truth(engine, length)
    assert len({beam.tokens for beam in beams}) == len(beams) <= width
    scores = [beam.log_prob for beam in beams]
    assert scores == sorted(scores, reverse=True)
    for beam in beams:
        assert END not in beam.tokens
        whole = (*beam.tokens, END) if len(beam.tokens) < length else beam.tokens
        assert math.isclose(beam.log_prob, truth[whole], abs_tol=1e-4)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_beam_wide_enough_finds_the_best_sequences(stand_in: Any, length: int) -> None:
    for seed in range(20):
        engine = TableEngine(VOCABULARY, seed=seed)
        width = VOCABULARY**length
        beams = stand_in.search_beams(
            engine, VOCABULARY, (2, 3), width=width, length=length, end_id=END
        )
        best = sorted(_truth(engine, length).values(), reverse=True)
        found = [beam.log_prob for beam in beams]
        np.testing.assert_allclose(found, best[: len(found)], atol=1e-4)


def test_the_search_stops_once_a_full_beam_width_has_ended(stand_in: Any) -> None:
    """Early stopping, TensorRT-LLM's default, loses better beams that are unfinished."""
    engine = TableEngine(VOCABULARY, seed=1)
    state, first = engine.prefill((2, 3), np.arange(VOCABULARY))
    assert state is not None
    (only,) = stand_in.search_beams(
        engine, VOCABULARY, (2, 3), width=1, length=4, end_id=int(first.read_all().argmax())
    )
    assert only.tokens == ()
    assert math.isclose(only.log_prob, float(first.read_all().max()), abs_tol=1e-6)


@pytest.fixture(scope="module")
def version(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("mount")
    (repository / "llm_engine" / "1").mkdir(parents=True)
    return add_engine(repository, tiny_bundle)


def _config() -> dict[str, Any]:
    """Return the production configuration as Triton gives it to a backend."""
    config = parse_config(render(contract.LLM_ENGINE, Target.TENSORRT_LLM))
    return {
        "parameters": {
            key: {"string_value": value.string_value} for key, value in config.parameters.items()
        },
        "model_transaction_policy": {"decoupled": config.model_transaction_policy.decoupled},
    }


def _load(stand_in: Any, version: Path, **parameters: str | None) -> Any:
    config = _config()
    for name, value in parameters.items():
        if value is None:
            del config["parameters"][name]
        else:
            config["parameters"][name] = {"string_value": value}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MOUNT_VARIABLE, str(version.parents[1]))
        model = stand_in.TritonPythonModel()
        model.initialize({"model_config": json.dumps(config)})
    return model


@pytest.fixture(scope="module")
def model(stand_in: Any, version: Path) -> Any:
    return _load(stand_in, version)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"gpt_model_path": "/models/llm_engine/9"}, "gpt_model_path /models/llm_engine/9 does"),
        ({"gpt_model_type": "V0"}, "gpt_model_type V0"),
        ({"guided_decoding_backend": None}, "no parameter guided_decoding_backend"),
        ({"max_beam_width": "64"}, "max_beam_width 64, the engine was built for 32"),
    ],
)
def test_a_configuration_that_the_real_backend_refuses_does_not_load(
    stand_in: Any, version: Path, parameters: dict[str, str | None], message: str
) -> None:
    with pytest.raises(stand_in.EngineError, match=message):
        _load(stand_in, version, **parameters)


def _inputs(**changed: Any) -> Tensors:
    """Return a request's tensors, reshaped as in the config: a scalar has only the batch."""
    integers = {"input_ids": [2, 5, 6, 7], "input_lengths": 4, "request_output_len": 2}
    integers |= {"beam_width": 8, "end_id": 0, "pad_id": 0}
    tensors: Tensors = {name: np.array(value, np.int32) for name, value in integers.items()}
    tensors["return_log_probs"] = np.array(True)
    return {name: value for name, value in (tensors | changed).items() if value is not None}


def _infer(model: Any, tensors: Tensors, outputs: tuple[str, ...] = OUTPUTS) -> Any:
    (response,) = model.execute([Request(tensors=tensors, outputs=outputs)])
    return response


def test_outputs_have_the_real_backends_shapes_and_padding(
    stand_in: Any, model: Any, tiny_bundle: Path
) -> None:
    renderer = PromptRenderer.load(tiny_bundle / PROMPT_FILE, tiny_bundle / TOKENIZER_FILE)
    end = np.array(renderer.end_id, np.int32)
    values = _infer(model, _inputs(end_id=end, request_output_len=np.array(3, np.int32))).values()
    ids, lengths = values[contract.OUTPUT_IDS], values[contract.SEQUENCE_LENGTH]
    assert ids.dtype == lengths.dtype == np.int32
    assert ids.shape == (8, lengths.max())
    assert lengths.shape == values[contract.CUM_LOG_PROBS].shape == (8,)
    assert (ids[np.arange(ids.shape[1]) >= lengths[:, None]] == -1).all()
    assert (ids[np.arange(ids.shape[1]) < lengths[:, None]] >= 0).all()
    engine = OnnxEngine(tiny_bundle / ONNX_MODEL_FILE)
    expected = stand_in.search_beams(
        engine, engine.vocabulary, [2, 5, 6, 7], width=8, length=3, end_id=renderer.end_id
    )
    assert [tuple(row[:n]) for row, n in zip(ids.tolist(), lengths, strict=True)] == [
        beam.tokens for beam in expected
    ]


def test_outputs_begin_with_the_prompt_unless_it_is_excluded(stand_in: Any, version: Path) -> None:
    model = _load(stand_in, version, exclude_input_in_output="false")
    ids = _infer(model, _inputs()).values()[contract.OUTPUT_IDS]
    assert (ids[:, :4] == [2, 5, 6, 7]).all()
    shorter = _infer(model, _inputs(exclude_input_in_output=np.array(True))).values()
    np.testing.assert_array_equal(shorter[contract.OUTPUT_IDS], ids[:, 4:])


@pytest.mark.parametrize("flag", [None, np.array(False)])
def test_log_probabilities_are_returned_only_on_request(model: Any, flag: Any) -> None:
    values = _infer(model, _inputs(return_log_probs=flag)).values()
    assert values.keys() == {contract.OUTPUT_IDS, contract.SEQUENCE_LENGTH}


def test_one_beam_is_the_default(model: Any) -> None:
    assert _infer(model, _inputs(beam_width=None)).values()[contract.SEQUENCE_LENGTH].shape == (1,)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"beam_width": np.array(33, np.int32)}, "beam_width 33, at most 32"),
        ({"request_output_len": None}, "request_output_len are required"),
        ({"input_ids": None}, "no input_ids"),
        ({"end_id": np.array([0], np.int32)}, "end_id int32 (1, 1), expected [1]"),
        ({"end_id": np.array(0, np.int64)}, "end_id int64 (1,), expected [1]"),
        ({"input_ids": np.full(9999, 5, np.int32)}, "a prompt of 9999"),
        ({"input_ids": np.array([-3, 5], np.int32)}, "found -3"),
    ],
)
def test_a_request_that_the_real_backend_refuses_is_refused(
    model: Any, changed: dict[str, Any], message: str
) -> None:
    response = _infer(model, _inputs(**changed))
    assert response.error is not None
    assert response.error.code == TritonError.INTERNAL
    assert message in str(response.error)


def test_required_outputs_must_be_requested(model: Any) -> None:
    response = _infer(model, _inputs(), (contract.CUM_LOG_PROBS,))
    assert "output_ids must be among" in str(response.error)
