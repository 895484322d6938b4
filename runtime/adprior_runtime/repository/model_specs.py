"""Every model of the repository, with its tensors, for each target.

`adprior_runtime.repository.model_configs` renders these specs to ``config.pbtxt`` (GPU production)
and ``configs/cpu.pbtxt`` (embedded). Shapes leave out the leading batch dimension, which is always
1 on the wire: a request holds one user, and the server batches requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from adprior_runtime.contract import (
    ADJUSTED_LOGITS,
    ADJUSTMENT_LIMIT,
    ADJUSTMENTS,
    ADVERTISER_DECODER,
    ADVERTISER_IDS,
    ADVERTISER_NAMES,
    ADVERTISER_RANKING,
    ADVERTISER_RETRIEVAL,
    ANSWER_VERSION,
    BASE_LOGITS,
    BEAM_WIDTH,
    BUNDLE_ID,
    CANDIDATE_ADVERTISER_IDS,
    CANDIDATE_LOG_PROBS,
    CANDIDATE_STATUS,
    CONTEXT_USE,
    CUM_LOG_PROBS,
    END_ID,
    EXACT,
    EXCLUDED_ADVERTISER_IDS,
    FRONTIER_LOG_MASS,
    INPUT_IDS,
    INPUT_LENGTHS,
    LLM_ENGINE,
    LOG_PROBS,
    MAX_BATCH_SIZE,
    MAX_QUEUE_DELAY_US,
    MISSING_MASS,
    OUTPUT_IDS,
    PAD_ID,
    PRIOR_FEATURES,
    PRIOR_HEAD,
    PROVED_TOP_K,
    REQUEST_OUTPUT_LEN,
    RETURN_LOG_PROBS,
    SCORED_EXACT,
    SCORED_LOG_PROBS,
    SEQUENCE_LENGTH,
    TOKENIZER,
    TOP_K,
    USER_CONTEXT,
    Target,
)
from adprior_runtime.repository import tensorrt_llm_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One input or output.

    Attributes:
        name: As on the wire.
        dtype: Triton's name without ``TYPE_``: INT32, INT64, FP32, BOOL, UINT8, BYTES.
        dims: Shape without the batch dimension; -1 varies.
        optional: The request may leave it out (inputs only).
        scalar: TensorRT-LLM's ``reshape { shape: [ ] }`` on dims [1].
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    optional: bool = False
    scalar: bool = False

    @property
    def ragged(self) -> bool:
        """Whether requests of different lengths may share a dynamic batch."""
        return -1 in self.dims


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One model of an ensemble; its tensors are wired to those of the same name.

    A tensor that a later step gives anew, under the same name, is wired to that step alone.
    """

    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How many of a model run on one machine, and how they take requests.

    Attributes:
        instances: Copies of the model, each a process of its own.
        max_batch_size: Requests that one copy is given at once. Python models work through them
            one by one and answer them together.
        max_queue_delay_us: How long a request may wait for others to share its batch.
        threads: Of one forward pass, of the embedded engine; 0 shares the processors that the
            server may use among the instances.
    """

    instances: int = 1
    max_batch_size: int = MAX_BATCH_SIZE
    max_queue_delay_us: int = MAX_QUEUE_DELAY_US
    threads: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model of the repository, for one target.

    Attributes:
        backend: ``python`` or ``tensorrtllm``; None for an ensemble.
        steps: The models of an ensemble, in the order a request travels.
        parameters: The config's ``parameters`` block.
        scaling: What a tuned repository sets for its machine; an ensemble has that of its steps.
        is_queued: Whether requests wait in a bounded queue, with deadlines. A step that gets no
            more than the step before lets through, and is quicker, is handed its requests directly.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    backend: str | None = "python"
    steps: tuple[Step, ...] = ()
    parameters: dict[str, str] = field(default_factory=dict)
    scaling: Scaling = Scaling()
    is_queued: bool = True


_PAIR: Final = Scaling(instances=2, max_queue_delay_us=0)
"""Of a Python model behind a bounded queue.

Triton wakes such a queue just before the instance that finished waits for work again; if the queue
looks first, it sleeps until another request comes, or half a second is over
(``dynamic_batch_scheduler.cc``: ``WaitForPayloadSlotAvailable``). With one instance of the prior
head and four requests in flight, one in fourteen waited that long; with a second instance none did.
Nor is anything gained by waiting for a batch: a Python model works through it one by one.
"""


def _tensor(name: str, dtype: str, *dims: int, optional: bool = False) -> Tensor:
    return Tensor(name=name, dtype=dtype, dims=dims, optional=optional)


_USER_CONTEXT = _tensor(USER_CONTEXT, "BYTES", 1)
_TOP_K = _tensor(TOP_K, "INT32", 1, optional=True)
_EXCLUDED = _tensor(EXCLUDED_ADVERTISER_IDS, "INT64", -1, optional=True)
_CANDIDATES = _tensor(CANDIDATE_ADVERTISER_IDS, "INT64", -1)
_BASE_LOGITS = _tensor(BASE_LOGITS, "FP32", -1)
_CONTEXT_USE = _tensor(CONTEXT_USE, "INT32", -1)
_BUNDLE_ID = _tensor(BUNDLE_ID, "BYTES", 1)
_ANSWER_VERSION = _tensor(ANSWER_VERSION, "BYTES", 1)

_PROMPT = (
    _tensor(INPUT_IDS, "INT32", -1),
    _tensor(INPUT_LENGTHS, "INT32", 1),
    _tensor(REQUEST_OUTPUT_LEN, "INT32", 1),
    _tensor(BEAM_WIDTH, "INT32", 1),
    _tensor(END_ID, "INT32", 1),
    _tensor(PAD_ID, "INT32", 1),
    _tensor(RETURN_LOG_PROBS, "BOOL", 1),
)
_BEAMS = (
    _tensor(OUTPUT_IDS, "INT32", -1, -1),
    _tensor(SEQUENCE_LENGTH, "INT32", -1),
    _tensor(CUM_LOG_PROBS, "FP32", -1),
)
_PROOF = (
    _tensor(PROVED_TOP_K, "INT32", 1),
    _tensor(FRONTIER_LOG_MASS, "FP32", 1),
)
_SCORED = (
    _tensor(SCORED_LOG_PROBS, "FP32", -1),
    _tensor(SCORED_EXACT, "BOOL", -1),
)
_EXACT = _tensor(EXACT, "BOOL", 1)
_FORECAST = (
    _tensor(ADVERTISER_IDS, "INT64", -1),
    _tensor(LOG_PROBS, "FP32", -1),
    _tensor(ADVERTISER_NAMES, "BYTES", -1),
    _EXACT,
    _tensor(MISSING_MASS, "FP32", 1),
    _BUNDLE_ID,
    _ANSWER_VERSION,
)
_RANKED_WITH = tuple(
    tensor
    for tensor in _FORECAST
    if tensor.name in {ADVERTISER_IDS, LOG_PROBS, EXACT, MISSING_MASS}
)
"""What the prior head ranks with, and gives back, so that it can be logged.

The last step of an ensemble gives all outputs. Triton leaves out a step of whose outputs a request
wants none, though a later step needs them (``ensemble_scheduler.cc``: ``pruned_tensor_to_step_``),
and then fails the request.
"""
_PRIORS = (
    _tensor(ADJUSTED_LOGITS, "FP32", -1),
    _tensor(ADJUSTMENTS, "FP32", -1),
    _tensor(CANDIDATE_LOG_PROBS, "FP32", -1),
    _tensor(CANDIDATE_STATUS, "UINT8", -1),
    _tensor(PRIOR_FEATURES, "FP32", -1, -1),
    _tensor(ADJUSTMENT_LIMIT, "FP32", 1),
    _BUNDLE_ID,
    _ANSWER_VERSION,
)


def _optional(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(Tensor(name=t.name, dtype=t.dtype, dims=t.dims, optional=True) for t in tensors)


def _as_scalars(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """TensorRT-LLM declares its one-element inputs as scalars."""
    return tuple(
        Tensor(name=t.name, dtype=t.dtype, dims=t.dims, optional=t.optional, scalar=t.dims == (1,))
        for t in tensors
    )


def _tokenizer(_: Target) -> Model:
    # What follows the prompt is for a caller of this model alone; no ensemble hands it on.
    told = (_CONTEXT_USE, _BUNDLE_ID, _ANSWER_VERSION)
    return Model(name=TOKENIZER, inputs=(_USER_CONTEXT,), outputs=(*_PROMPT, *told), scaling=_PAIR)


def _llm_engine(target: Target) -> Model:
    if target is Target.CPU:
        return Model(
            name=LLM_ENGINE,
            inputs=(*_PROMPT, _TOP_K, *_optional((_CANDIDATES,)), _EXCLUDED),
            outputs=(*_BEAMS, *_PROOF, *_SCORED),
            scaling=_PAIR,
        )
    return Model(
        name=LLM_ENGINE,
        backend=tensorrt_llm_names.BACKEND,
        inputs=_as_scalars(_PROMPT),
        outputs=_BEAMS,
        parameters=tensorrt_llm_names.SERVED_PARAMETERS,
    )


def _advertiser_decoder(_: Target) -> Model:
    return Model(
        name=ADVERTISER_DECODER,
        inputs=(*_BEAMS, *_optional(_PROOF), _TOP_K, _EXCLUDED),
        outputs=_FORECAST,
        is_queued=False,
    )


def _prior_head(_: Target) -> Model:
    forecast = tuple(tensor for tensor in _RANKED_WITH if tensor != _EXACT)
    return Model(
        name=PRIOR_HEAD,
        inputs=(*forecast, *_optional((_EXACT,)), _CANDIDATES, _BASE_LOGITS, *_optional(_SCORED)),
        outputs=(*_PRIORS, *_RANKED_WITH),
        scaling=_PAIR,
    )


def _advertiser_retrieval(_: Target) -> Model:
    return Model(
        name=ADVERTISER_RETRIEVAL,
        backend=None,
        inputs=(_USER_CONTEXT, _TOP_K, _EXCLUDED),
        outputs=_FORECAST,
        steps=(Step(model=TOKENIZER), Step(model=LLM_ENGINE), Step(model=ADVERTISER_DECODER)),
    )


def _advertiser_ranking(_: Target) -> Model:
    return Model(
        name=ADVERTISER_RANKING,
        backend=None,
        inputs=(_USER_CONTEXT, _CANDIDATES, _BASE_LOGITS),
        outputs=(*_PRIORS, *_RANKED_WITH),
        steps=(
            Step(model=TOKENIZER),
            Step(model=LLM_ENGINE),
            Step(model=ADVERTISER_DECODER),
            Step(model=PRIOR_HEAD),
        ),
    )


_MODELS = {
    TOKENIZER: _tokenizer,
    LLM_ENGINE: _llm_engine,
    ADVERTISER_DECODER: _advertiser_decoder,
    PRIOR_HEAD: _prior_head,
    ADVERTISER_RETRIEVAL: _advertiser_retrieval,
    ADVERTISER_RANKING: _advertiser_ranking,
}


def model(name: str, target: Target) -> Model:
    """Return the spec of model ``name`` as it is deployed on ``target``."""
    return _MODELS[name](target)


def models(target: Target) -> tuple[Model, ...]:
    """Return every model of the repository as deployed on ``target``, steps before ensembles."""
    return tuple(make(target) for make in _MODELS.values())
