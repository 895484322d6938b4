"""The peer onnxruntime-genai: beams over the whole vocabulary.

Its package's model builder writes the graph. For Gemma 3 it needs transformers 4 and
onnxruntime-genai up to 0.15, and the two rotations in the form of that ``config.json``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def load(job: dict[str, Any]) -> Callable[[Sequence[int]], list[tuple[None, list[int]]]]:
    """Return the search of a checkpoint, see `worker`."""
    import onnxruntime_genai  # noqa: PLC0415  is in the peer's Python only

    directory = Path(job["scratch"])
    source = _older_form(Path(job["checkpoint"]), directory / "checkpoint")
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-p", "fp32", "-e", "cpu"]
    builder += ["-i", str(source), "-o", str(directory), "-c", str(directory / "cache")]
    done = subprocess.run(builder, check=False, stdout=sys.stderr)  # noqa: S603  the package's own command
    if done.returncode != 0:
        raise RuntimeError("its model builder does not take the checkpoint")
    path = directory / "genai_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model"]["eos_token_id"] = job["end_id"]
    config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = job["threads"]
    path.write_text(json.dumps(config), encoding="utf-8")
    model = onnxruntime_genai.Model(str(directory))

    def search(prompt: Sequence[int]) -> list[tuple[None, list[int]]]:
        options = onnxruntime_genai.GeneratorParams(model)
        options.set_search_options(
            num_beams=job["width"],
            num_return_sequences=job["width"],
            max_length=len(prompt) + job["max_new_tokens"],
            length_penalty=0.0,
            early_stopping=False,
            do_sample=False,
        )
        generator = onnxruntime_genai.Generator(model, options)
        generator.append_tokens(list(prompt))
        while not generator.is_done():
            generator.generate_next_token()
        beams = [generator.get_sequence(each).tolist() for each in range(job["width"])]
        return [(None, _with_end(beam[len(prompt) :], job)) for beam in beams]

    return search


def _with_end(beam: list[int], job: dict[str, Any]) -> list[int]:
    """Return a beam with the end that was cut off, unless the beam was not over."""
    return beam if len(beam) == job["max_new_tokens"] else [*beam, job["end_id"]]


def _older_form(checkpoint: Path, directory: Path) -> Path:
    """Write a checkpoint's directory with the configuration of transformers 4; return it."""
    shutil.copytree(checkpoint, directory, copy_function=os.link)
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    ropes = config.get("rope_parameters") or {}
    if "full_attention" in ropes:
        del config["rope_parameters"]
        config["rope_theta"] = ropes["full_attention"]["rope_theta"]
        config["rope_local_base_freq"] = ropes["sliding_attention"]["rope_theta"]
    (directory / "config.json").unlink()
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory
