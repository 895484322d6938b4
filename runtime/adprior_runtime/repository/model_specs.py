"""Every model of the repository, with its tensors, for each target.

`adprior_runtime.repository.model_configs` renders these specs to ``config.pbtxt`` (TensorRT-LLM),
``configs/cpu.pbtxt`` and ``configs/cuda.pbtxt`` (the exact search). Shapes leave out the leading
batch dimension, which is always 1 on the wire: a request holds one user, and the server batches
requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from adprior_runtime import contract
from adprior_runtime.contract import Target
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
class ModelTuning:
    """The copies of a model on one machine, and how they take requests.

    Attributes:
        instances: Copies of the model, each a process of its own.
        max_batch_size: Requests that one copy receives at once. Python models work through them
            one by one and answer them together; the torch engine's searches share passes.
        max_queue_delay_us: How long a request may wait for others to share its batch.
        threads: Threads of one forward pass on the CPU; 0 shares the processors that the server may
            use among the instances.
    """

    instances: int = 1
    max_batch_size: int = contract.MAX_BATCH_SIZE
    max_queue_delay_us: int = contract.MAX_QUEUE_DELAY_US
    threads: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model of the repository, for one target.

    Attributes:
        backend: ``python`` or ``tensorrtllm``; None for an ensemble.
        steps: The models of an ensemble, in the order of a request. A step reads each tensor from
            the last step before it that returns a tensor of that name.
        parameters: The configuration's ``parameters`` block.
        tuning: Instances, batches and threads, which a tuning file may change. An ensemble's
            follows from its steps.
        is_queued: Whether requests wait in a bounded queue, with deadlines. A step that is faster
            than the step before it needs no queue.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    backend: str | None = "python"
    steps: tuple[str, ...] = ()
    parameters: dict[str, str] = field(default_factory=dict)
    tuning: ModelTuning = ModelTuning()
    is_queued: bool = True


_PAIR: Final = ModelTuning(instances=2, max_queue_delay_us=0)
"""The tuning of a Python model behind a bounded queue.

When an instance finishes, Triton wakes the queue just before that instance waits for work again. If
the queue looks first, it finds no free instance, and sleeps until another request comes or half a
second has passed (``dynamic_batch_scheduler.cc``: ``WaitForPayloadSlotAvailable``). With one
instance of the prior head and four requests in flight, one request in fourteen waited that long;
with two instances none did. Waiting for a batch gains nothing: a Python model works through it one
request at a time.
"""

_ON_A_GPU: Final = ModelTuning(max_queue_delay_us=0)
"""The tuning of the language model on a GPU: each instance would load the weights again."""


def _tensor(name: str, dtype: str, *dims: int, optional: bool = False) -> Tensor:
    return Tensor(name=name, dtype=dtype, dims=dims, optional=optional)


_USER_CONTEXT = _tensor(contract.USER_CONTEXT, "BYTES", 1)
_TOP_K = _tensor(contract.TOP_K, "INT32", 1, optional=True)
_INTEREST_TOP_K = _tensor(contract.INTEREST_TOP_K, "INT32", 1, optional=True)
_EXCLUDED = _tensor(contract.EXCLUDED_ADVERTISER_IDS, "INT64", -1, optional=True)
_CANDIDATES = _tensor(contract.CANDIDATE_ADVERTISER_IDS, "INT64", -1)
_BASE_LOGITS = _tensor(contract.BASE_LOGITS, "FP32", -1)
_CONTEXT_USE = _tensor(contract.CONTEXT_USE, "INT32", -1)
_PROOF_MARGIN = _tensor(contract.PROOF_MARGIN, "FP32", 1)
"""The smallest difference of log-probabilities that proves an order with this bundle."""
_BUNDLE_ID = _tensor(contract.BUNDLE_ID, "BYTES", 1)
_ANSWER_VERSION = _tensor(contract.ANSWER_VERSION, "BYTES", 1)

_PROMPT = (
    _tensor(contract.INPUT_IDS, "INT32", -1),
    _tensor(contract.INPUT_LENGTHS, "INT32", 1),
    _tensor(contract.REQUEST_OUTPUT_LEN, "INT32", 1),
    _tensor(contract.BEAM_WIDTH, "INT32", 1),
    _tensor(contract.END_ID, "INT32", 1),
    _tensor(contract.PAD_ID, "INT32", 1),
    _tensor(contract.RETURN_LOG_PROBS, "BOOL", 1),
)
_BEAMS = (
    _tensor(contract.OUTPUT_IDS, "INT32", -1, -1),
    _tensor(contract.SEQUENCE_LENGTH, "INT32", -1),
    _tensor(contract.CUM_LOG_PROBS, "FP32", -1),
)
_INTEREST_BEAMS = (
    _tensor(contract.INTEREST_OUTPUT_IDS, "INT32", -1, -1),
    _tensor(contract.INTEREST_SEQUENCE_LENGTH, "INT32", -1),
    _tensor(contract.INTEREST_CUM_LOG_PROBS, "FP32", -1),
)
_PROOF = (
    _tensor(contract.PROVED_TOP_K, "INT32", 1),
    _tensor(contract.FRONTIER_LOG_MASS, "FP32", 1),
)
_SCORED = (
    _tensor(contract.SCORED_LOG_PROBS, "FP32", -1),
    _tensor(contract.SCORED_EXACT, "BOOL", -1),
)
_EXACT = _tensor(contract.EXACT, "BOOL", 1)
_FORECAST = (
    _tensor(contract.ADVERTISER_IDS, "INT64", -1),
    _tensor(contract.LOG_PROBS, "FP32", -1),
    _tensor(contract.ADVERTISER_NAMES, "BYTES", -1),
    _EXACT,
    _tensor(contract.MISSING_MASS, "FP32", 1),
    _BUNDLE_ID,
    _ANSWER_VERSION,
)
_INTERESTS = (
    _tensor(contract.INTEREST_IDS, "INT64", -1),
    _tensor(contract.INTEREST_LOG_PROBS, "FP32", -1),
    _tensor(contract.INTEREST_NAMES, "BYTES", -1),
)
"""Empty unless the request asks for interests and the bundle has them. TensorRT-LLM, which does one
beam search a request, has none."""
_RANKED_WITH = tuple(
    tensor
    for tensor in _FORECAST
    if tensor.name
    in {contract.ADVERTISER_IDS, contract.LOG_PROBS, contract.EXACT, contract.MISSING_MASS}
)
"""The parts of a forecast that the prior head ranks with. The head repeats these outputs. Reason:
Triton skips a step whose outputs nobody requested, even if a later step needs it, and then fails
the request (``ensemble_scheduler.cc``: ``pruned_tensor_to_step_``)."""
_PRIORS = (
    _tensor(contract.ADJUSTED_LOGITS, "FP32", -1),
    _tensor(contract.ADJUSTMENTS, "FP32", -1),
    _tensor(contract.CANDIDATE_LOG_PROBS, "FP32", -1),
    _tensor(contract.CANDIDATE_STATUS, "UINT8", -1),
    _tensor(contract.PRIOR_FEATURES, "FP32", -1, -1),
    _tensor(contract.ADJUSTMENT_LIMIT, "FP32", 1),
    _BUNDLE_ID,
    _ANSWER_VERSION,
)


def _optional(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(replace(tensor, optional=True) for tensor in tensors)


def _as_scalars(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Declare one-element inputs as scalars, as TensorRT-LLM does."""
    return tuple(replace(tensor, scalar=tensor.dims == (1,)) for tensor in tensors)


def _tokenizer(_: Target) -> Model:
    return Model(
        name=contract.TOKENIZER,
        inputs=(_USER_CONTEXT,),
        # The outputs after the prompt are for callers of this model; no ensemble returns them.
        outputs=(*_PROMPT, _CONTEXT_USE, _PROOF_MARGIN, _BUNDLE_ID, _ANSWER_VERSION),
        tuning=_PAIR,
    )


def _llm_engine(target: Target) -> Model:
    if target is Target.TENSORRT_LLM:
        return Model(
            name=contract.LLM_ENGINE,
            backend=tensorrt_llm_names.BACKEND,
            inputs=_as_scalars(_PROMPT),
            outputs=_BEAMS,
            parameters=tensorrt_llm_names.SERVED_PARAMETERS,
        )
    is_on_gpu = target is Target.CUDA
    return Model(
        name=contract.LLM_ENGINE,
        inputs=(*_PROMPT, _TOP_K, *_optional((_CANDIDATES,)), _EXCLUDED, _INTEREST_TOP_K),
        outputs=(*_BEAMS, *_PROOF, *_SCORED, *_INTEREST_BEAMS),
        parameters={contract.DEVICE_PARAMETER: target.value} if is_on_gpu else {},
        tuning=_ON_A_GPU if is_on_gpu else _PAIR,
    )


def _advertiser_decoder(_: Target) -> Model:
    return Model(
        name=contract.ADVERTISER_DECODER,
        inputs=(
            *_BEAMS,
            *_optional((*_PROOF, *_INTEREST_BEAMS)),
            _TOP_K,
            _EXCLUDED,
            _INTEREST_TOP_K,
        ),
        outputs=(*_FORECAST, *_INTERESTS),
        is_queued=False,
    )


def _prior_head(_: Target) -> Model:
    forecast = tuple(tensor for tensor in _RANKED_WITH if tensor != _EXACT)
    return Model(
        name=contract.PRIOR_HEAD,
        inputs=(*forecast, *_optional((_EXACT,)), _CANDIDATES, _BASE_LOGITS, *_optional(_SCORED)),
        outputs=(*_PRIORS, *_RANKED_WITH),
        tuning=_PAIR,
    )


def _advertiser_retrieval(_: Target) -> Model:
    return Model(
        name=contract.ADVERTISER_RETRIEVAL,
        backend=None,
        inputs=(_USER_CONTEXT, _TOP_K, _EXCLUDED, _INTEREST_TOP_K),
        outputs=(*_FORECAST, *_INTERESTS),
        steps=(contract.TOKENIZER, contract.LLM_ENGINE, contract.ADVERTISER_DECODER),
    )


def _advertiser_ranking(_: Target) -> Model:
    return Model(
        name=contract.ADVERTISER_RANKING,
        backend=None,
        inputs=(_USER_CONTEXT, _CANDIDATES, _BASE_LOGITS, _INTEREST_TOP_K),
        outputs=(*_PRIORS, *_RANKED_WITH, *_INTERESTS),
        steps=(
            contract.TOKENIZER,
            contract.LLM_ENGINE,
            contract.ADVERTISER_DECODER,
            contract.PRIOR_HEAD,
        ),
    )


_MAKERS = {
    contract.TOKENIZER: _tokenizer,
    contract.LLM_ENGINE: _llm_engine,
    contract.ADVERTISER_DECODER: _advertiser_decoder,
    contract.PRIOR_HEAD: _prior_head,
    contract.ADVERTISER_RETRIEVAL: _advertiser_retrieval,
    contract.ADVERTISER_RANKING: _advertiser_ranking,
}


def model(name: str, target: Target) -> Model:
    """Return the spec of model ``name`` as it is deployed on ``target``."""
    return _MAKERS[name](target)
