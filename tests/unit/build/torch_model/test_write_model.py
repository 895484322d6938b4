from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from adprior_build.onnx_graph.architecture import read_architecture
from adprior_build.onnx_graph.parity import Parity, check_parity
from adprior_build.torch_model.bfloat16 import Bfloat16
from adprior_build.torch_model.write_model import TORCH_PRECISIONS, write_torch_model
from adprior_runtime.bundle import ARCHITECTURE_FILE, TORCH_WEIGHTS_FILE
from adprior_runtime.engines.architecture import Architecture
from adprior_runtime.engines.torch_engine import TorchEngine
from adprior_runtime.errors import ArtefactError, InvalidInputError
from support.small_models import (
    FAMILIES,
    MAX_POSITIONS,
    VOCABULARY,
    small_gemma3,
    small_llama,
    weights_of,
)

NORM = "model.norm.weight"


def _check(model: Any, directory: Path, precision: str) -> Parity:
    text = np.random.default_rng(0).integers(0, VOCABULARY, MAX_POSITIONS // 2).tolist()
    return check_parity(
        model.config.to_dict(),
        weights_of(model),
        TorchEngine(directory, threads=1),
        name="small",
        precision=precision,
        rounding=TORCH_PRECISIONS[precision],
        text=text,
    )


@pytest.mark.parametrize("make", FAMILIES)
def test_the_files_hold_the_checkpoint(make: Callable[[], Any], tmp_path: Path) -> None:
    model = make()
    config, weights = model.config.to_dict(), weights_of(model)
    write_torch_model(config, weights, tmp_path)
    assert Architecture.load(tmp_path / ARCHITECTURE_FILE) == read_architecture(config)
    found = load_file(tmp_path / TORCH_WEIGHTS_FILE)
    assert found.keys() == weights.keys()
    for name, values in weights.items():
        np.testing.assert_array_equal(found[name].numpy(), values)
    parity = _check(model, tmp_path, "fp32")
    assert 0 < parity.difference <= parity.tolerance < 1e-2
    assert parity.mean_loss == 0


@pytest.mark.parametrize("make", [small_llama, small_gemma3])
def test_matrices_are_rounded_to_bfloat16_and_computed_in_single_precision(
    make: Callable[[], Any], tmp_path: Path
) -> None:
    model = make()
    write_torch_model(model.config.to_dict(), weights_of(model), tmp_path, precision="bf16")
    for name, values in load_file(tmp_path / TORCH_WEIGHTS_FILE).items():
        expected = torch.from_numpy(weights_of(model)[name])
        expected = expected.bfloat16() if expected.ndim > 1 else expected
        assert values.dtype == expected.dtype
        assert torch.equal(values, expected)
    parity = _check(model, tmp_path, "bf16")
    assert 0 < parity.difference <= parity.tolerance < 1e-2
    assert parity.mean_loss > 10 * parity.difference


def test_every_weight_is_aligned(tmp_path: Path) -> None:
    model = small_llama()
    write_torch_model(model.config.to_dict(), weights_of(model), tmp_path, precision="bf16")
    content = (tmp_path / TORCH_WEIGHTS_FILE).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    del header["__metadata__"]
    places = [(entry["dtype"], start + entry["data_offsets"][0]) for entry in header.values()]
    assert {kind for kind, _ in places} == {"F32", "BF16"}
    assert all(place % (4 if kind == "F32" else 2) == 0 for kind, place in places)


def test_a_wrong_weight_is_found(tmp_path: Path) -> None:
    model = small_llama()
    weights = dict(weights_of(model))
    first, second = (f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1))
    weights[first], weights[second] = weights[second], weights[first]
    write_torch_model(model.config.to_dict(), weights, tmp_path)
    with pytest.raises(ArtefactError, match=r"^small: the engine in fp32 differs from the check"):
        _check(model, tmp_path, "fp32")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({NORM: None}, f"the checkpoint has no weight {NORM}"),
        ({"extra": np.zeros(2)}, "1 weights that the architecture does not explain, among them ex"),
        ({NORM: np.zeros(31)}, rf"the checkpoint's {NORM} is \[31\], by its config.json it is \[3"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    model = small_llama()
    weights: dict[str, Any] = weights_of(model) | changed  # type: ignore[operator]
    weights = {name: values for name, values in weights.items() if values is not None}
    with pytest.raises(InvalidInputError, match=message):
        write_torch_model(model.config.to_dict(), weights, tmp_path)


def test_values_round_to_the_nearest_bfloat16_and_ties_to_even() -> None:
    random = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8], dtype=np.float32)
    odd = np.array([0.0, -0.0, 3e38, 1e-40, np.inf, -np.inf, np.nan], dtype=np.float32)
    values = np.concatenate([random, ties, odd])
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    np.testing.assert_array_equal(Bfloat16().rounded(values), expected)
