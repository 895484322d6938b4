from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adprior_runtime.engines.architecture import (
    EMBEDDING,
    OUTPUT,
    Architecture,
    Rotation,
    weight_shapes,
)
from adprior_runtime.errors import ArtefactError

SMALL = Architecture(
    vocabulary=50, hidden=32, intermediate=64, layers=2, heads=4, key_value_heads=2, head_size=4,
    max_positions=64, norm_epsilon=1e-6, norm_offset=1.0, activation="gelu", tied=True,
    embedding_scale=5.6, sandwich=True, attention_scale=0.25, attention_cap=50.0, final_cap=None,
    rotations=(Rotation((1.0, 0.01)), Rotation((0.125, 1e-3 / 3))), windows=(8, None),
)  # fmt: skip


def test_an_architecture_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "architecture.json"
    path.write_text(SMALL.to_json(), encoding="utf-8")
    assert Architecture.load(path) == SMALL


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"colour": 1}, "unexpected keyword argument 'colour'"),
        ({"heads": "4"}, "heads is '4', expected a whole number above 0"),
        ({"norm_epsilon": None}, "norm_epsilon is None, expected a number"),
        ({"activation": "relu"}, "activation is 'relu', expected one of"),
        ({"heads": 3}, "3 heads share 2 keys and values"),
        ({"windows": [None]}, "2 rotations and 1 windows for 2 layers"),
        ({"head_size": 10}, "a rotation does not fit heads of 10 numbers"),
    ],
)
def test_an_architecture_that_does_not_fit_itself_is_refused(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps(json.loads(SMALL.to_json()) | changed))
    with pytest.raises(ArtefactError) as caught:
        Architecture.load(path)
    assert str(caught.value).startswith(f"{path}: not a language model's architecture: ")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_weights_that_may_be_missing_are_expected_if_there_are_some() -> None:
    plain = weight_shapes(SMALL, ())
    assert plain[EMBEDDING] == (50, 32)
    assert plain["model.layers.1.self_attn.k_proj.weight"] == (8, 32)
    assert plain["model.layers.1.post_feedforward_layernorm.weight"] == (32,)
    assert not any(name.endswith(".bias") or "q_norm" in name for name in plain)
    given = {"model.layers.0.self_attn.v_proj.bias", "model.layers.1.self_attn.q_norm.weight"}
    more = weight_shapes(SMALL, given)
    assert {name: more[name] for name in more.keys() - plain.keys()} == {
        "model.layers.0.self_attn.q_proj.bias": (16,),
        "model.layers.0.self_attn.k_proj.bias": (8,),
        "model.layers.0.self_attn.v_proj.bias": (8,),
        "model.layers.1.self_attn.q_norm.weight": (4,),
    }


def test_only_an_untied_model_has_an_output_matrix_and_a_plain_one_two_norms_a_layer() -> None:
    untied = weight_shapes(replace(SMALL, tied=False, sandwich=False), ())
    assert untied[OUTPUT] == (50, 32)
    assert OUTPUT not in weight_shapes(SMALL, ())
    assert sum("layernorm" in name for name in untied) == 2 * SMALL.layers
