from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoConfig

from adprior_bench.search.peers.genai_beams import _older_form
from support.tiny_checkpoint import write_tiny_checkpoint


def test_the_older_form_names_the_same_rotations(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    write_tiny_checkpoint(checkpoint)
    older = _older_form(checkpoint, tmp_path / "older")
    config = json.loads((older / "config.json").read_text("utf-8"))
    assert (config["rope_theta"], config["rope_local_base_freq"]) == (1e6, 1e4)
    assert "rope_parameters" in json.loads((checkpoint / "config.json").read_text("utf-8"))
    first, second = (AutoConfig.from_pretrained(each) for each in (checkpoint, older))
    assert first.rope_parameters == second.rope_parameters
    assert (older / "model.safetensors").samefile(checkpoint / "model.safetensors")
