"""A STAND-IN for Triton's backend ``tensorrtllm``, for tests without TensorRT-LLM and a GPU.

On the CPU it keeps the tensor contract of TensorRT-LLM's ``inflight_batcher_llm`` (names, scalar
reshapes, one sequence a request, beams without their end token, padding with -1, no
``cum_log_probs`` unless requested, refusals) and its stock beam search. It does not reproduce
speed, memory, batching in flight, precision, faults or the queue: it answers a batch before it
takes the next, so that requests wait in Triton's queue; the real one keeps them in its own. The
sources are NVIDIA/TensorRT-LLM, in copies that were not marked with a release:
``triton_backend/inflight_batcher_llm/src/`` at 0c8de69a1ca6213eebb20a51873890ff128666c2,
``cpp/tensorrt_llm/batch_manager/llmRequest.cpp`` at 119c6e60e65e5ecec4e97afdb6ea584f674aed24,
``trtGptModelInflightBatching.cpp`` beside it at b35ac1b64368513d215c57d2ed01d62d910df8da, and
``cpp/tensorrt_llm/kernels/beamSearchKernels/beamSearchKernelsTemplate.h`` at
2a9abd9536aa62ad3e4b9314be9286b1b1be523b. No line is copied.

The engine's directory is where ``gpt_model_path`` says, as for the real one. Here ``rank0.engine``
is an ONNX model of `adprior_build.onnx_graph`; ``config.json`` is as ``trtllm-build``
writes it.
In place of the container's mount ``/models``, the environment variable
``STAND_IN_FOR_MODELS_MOUNT`` names a directory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb

from adprior_runtime.engines.base import ROOT, Engine
from adprior_runtime.engines.onnx import OnnxEngine

MOUNT_VARIABLE = "STAND_IN_FOR_MODELS_MOUNT"
_MOUNT = PurePosixPath("/models")
_NO_TOKEN = -1
_SCALARS = {
    "input_lengths": np.int32,
    "request_output_len": np.int32,
    "beam_width": np.int32,
    "end_id": np.int32,
    "pad_id": np.int32,
    "return_log_probs": np.bool_,
    "exclude_input_in_output": np.bool_,
}
_REQUIRED_PARAMETERS = (  # read without a default: a model that lacks one does not load
    "gpt_model_type",
    "gpt_model_path",
    "tokenizer_dir",
    "xgrammar_tokenizer_info_path",
    "guided_decoding_backend",
)


class EngineError(Exception):
    """An internal error, as the real backend returns it."""


@dataclass(frozen=True, slots=True)
class Beam:
    """A beam's tokens, without the end token, and the sum of log-probabilities, with it."""

    tokens: tuple[int, ...]
    log_prob: float


def search_beams(
    engine: Engine[Any],
    vocabulary: int,
    prompt: Sequence[int],
    *,
    width: int,
    length: int,
    end_id: int | None,
) -> list[Beam]:
    """Search as TensorRT-LLM's stock beam search does by default, and return ``width`` beams.

    Among a step's 2 x ``width`` best continuations, those of the first ``width`` that end are
    finished; the best of the others continue. The search stops at ``width`` finished beams (early
    stopping), or at ``length`` tokens, where unfinished beams compete with finished ones. Scores
    are plain sums.
    """
    everything = np.arange(vocabulary)
    state, first = engine.prefill(prompt, everything)
    log_probs = first.read_all()[None].astype(np.float64)
    live, nodes = [Beam((), 0.0)], np.array([ROOT])
    finished: list[Beam] = []
    extended = 0
    for step in range(length):
        going: list[Beam] = []
        parents: list[int] = []
        scores = (np.array([[beam.log_prob] for beam in live]) + log_probs).ravel()
        for rank, place in enumerate(_best(scores, 2 * width)):
            parent, token = divmod(int(place), log_probs.shape[1])
            score = float(scores[place])
            if token == end_id:
                if rank < width:
                    _finish(finished, Beam(live[parent].tokens, score), width)
                continue
            going.append(Beam((*live[parent].tokens, token), score))
            parents.append(parent)
            if len(going) == width:
                break
        if len(finished) == width:
            return sorted(finished, key=lambda beam: -beam.log_prob)
        live = going
        if step + 1 < length:
            tokens = [beam.tokens[-1] for beam in live]
            rows, asked = np.divmod(np.arange(len(tokens) * vocabulary), vocabulary)
            found = engine.extend(state, tokens, nodes[parents], rows, asked)
            log_probs = found.reshape(len(tokens), vocabulary).astype(np.float64)
            nodes = np.arange(extended, extended + len(live))
            extended += len(live)
    return sorted([*finished, *live], key=lambda beam: -beam.log_prob)[:width]


def _finish(finished: list[Beam], beam: Beam, width: int) -> None:
    """Add a finished beam; if there are ``width``, it may replace the worst."""
    if len(finished) == width:
        worst = min(finished, key=lambda other: other.log_prob)
        if beam.log_prob < worst.log_prob:
            return
        finished.remove(worst)
    finished.append(beam)


def _best(scores: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """Return the places of the largest scores, the largest first."""
    count = min(count, len(scores))
    places = np.argpartition(-scores, count - 1)[:count]
    return places[np.argsort(-scores[places], kind="stable")]


class TritonPythonModel:
    """The backend as a Triton Python model."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the engine, as the config's parameters say."""
        config = json.loads(args["model_config"])
        parameters = {key: item["string_value"] for key, item in config["parameters"].items()}
        for name in _REQUIRED_PARAMETERS:
            if name not in parameters:
                raise EngineError(f"stand-in: no parameter {name}")
        if parameters["gpt_model_type"] not in {"inflight_fused_batching", "inflight_batching"}:
            raise EngineError(f"stand-in: gpt_model_type {parameters['gpt_model_type']}")
        if config["model_transaction_policy"]["decoupled"]:
            raise EngineError("stand-in: a decoupled model would stream, which this does not")
        directory = _engine_directory(parameters["gpt_model_path"])
        self._sizes = json.loads((directory / "config.json").read_text())["build_config"]
        self._max_beam_width = int(parameters.get("max_beam_width", "1"))
        if self._max_beam_width > self._sizes["max_beam_width"]:
            raise EngineError(
                f"stand-in: max_beam_width {self._max_beam_width}, "
                f"the engine was built for {self._sizes['max_beam_width']}"
            )
        self._excludes_prompt = parameters.get("exclude_input_in_output", "false") == "true"
        self._engine = OnnxEngine(directory / "rank0.engine")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        try:
            outputs = self._answer(request)
        except Exception as error:  # noqa: BLE001  the real one answers any failure this way
            return pb.InferenceResponse(error=pb.TritonError(str(error), pb.TritonError.INTERNAL))
        wanted = set(request.requested_output_names())
        for name in ("output_ids", "sequence_length"):
            if name not in wanted:
                message = f"stand-in: {name} must be among the outputs asked for"
                return pb.InferenceResponse(error=pb.TritonError(message, pb.TritonError.INTERNAL))
        return pb.InferenceResponse(
            [pb.Tensor(name, values) for name, values in outputs.items() if name in wanted]
        )

    def _answer(self, request: Any) -> dict[str, npt.NDArray[Any]]:
        prompt = _read_prompt(request)
        scalars = {name: _read_scalar(request, name) for name in _SCALARS}
        if scalars["input_lengths"] is None or scalars["request_output_len"] is None:
            raise EngineError("stand-in: input_lengths and request_output_len are required")
        width = 1 if scalars["beam_width"] is None else int(scalars["beam_width"])
        if not 1 <= width <= self._max_beam_width:
            raise EngineError(f"stand-in: beam_width {width}, at most {self._max_beam_width}")
        if len(prompt) > self._sizes["max_input_len"]:
            raise EngineError(
                f"stand-in: a prompt of {len(prompt)}, at most {self._sizes['max_input_len']}"
            )
        room = self._sizes["max_seq_len"] - len(prompt)
        beams = search_beams(
            self._engine,
            self._engine.vocabulary,
            prompt,
            width=width,
            length=min(int(scalars["request_output_len"]), room),  # shortened, not refused
            end_id=scalars["end_id"],
        )
        exclude = scalars["exclude_input_in_output"]
        excludes_prompt = self._excludes_prompt if exclude is None else bool(exclude)
        before = () if excludes_prompt else tuple(prompt)
        rows = [(*before, *beam.tokens) for beam in beams]
        longest = max(map(len, rows))
        output_ids = [[*row, *[_NO_TOKEN] * (longest - len(row))] for row in rows]
        outputs = {
            "output_ids": np.array([output_ids], dtype=np.int32),
            "sequence_length": np.array([[len(row) for row in rows]], dtype=np.int32),
        }
        if scalars["return_log_probs"]:
            log_probs = [beam.log_prob for beam in beams]
            outputs["cum_log_probs"] = np.array([log_probs], dtype=np.float32)
        return outputs


def _engine_directory(path: str) -> Path:
    """Return an engine's directory, with the container's mount replaced."""
    mount = os.environ.get(MOUNT_VARIABLE)
    inside = PurePosixPath(path)
    if mount and inside.is_relative_to(_MOUNT):
        directory = Path(mount) / inside.relative_to(_MOUNT)
    else:
        directory = Path(path)
    if not directory.is_dir():
        raise EngineError(f"stand-in: gpt_model_path {path} does not exist")
    return directory


def _read_prompt(request: Any) -> list[int]:
    """Return all of ``input_ids``, whatever ``input_lengths`` says, as the real backend does."""
    tensor = pb.get_input_tensor_by_name(request, "input_ids")
    if tensor is None:
        raise EngineError("stand-in: no input_ids")
    values = tensor.as_numpy()
    if values.dtype != np.int32 or values.ndim != 2:
        raise EngineError(f"stand-in: input_ids {values.dtype} {values.shape}, not INT32 [1, n]")
    if len(values) != 1:
        raise EngineError(
            f"stand-in: {len(values)} sequences in one request; a model that is not decoupled "
            "takes one"
        )
    tokens: list[int] = values[0].tolist()
    return tokens


def _read_scalar(request: Any, name: str) -> Any:
    """Return a scalar input's value; None if it is missing."""
    tensor = pb.get_input_tensor_by_name(request, name)
    if tensor is None:
        return None
    values = tensor.as_numpy()
    if values.dtype != _SCALARS[name] or values.shape != (1,):  # the batch, and a reshape to []
        raise EngineError(f"stand-in: {name} {values.dtype} {values.shape}, expected [1]")
    return values[0].item()
