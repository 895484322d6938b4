"""The contract: every model and tensor of the repository, with its type and shape.

Nothing else spells these names. `adprior_build.repository.model_configs` renders the specs below to
``config.pbtxt`` (GPU production) and ``configs/cpu.pbtxt`` (embedded); the models and the clients
import the constants. Shapes leave out the leading batch dimension, which is always 1 on the wire:
one user a request, the server batches.

The light half of the runtime: importing this module imports nothing beyond the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

CONTRACT_VERSION: Final = "1"
"""Goes up when a tensor changes meaning, type or shape. Bundles carry it, and every answer."""

CPU_CONFIG_NAME: Final = "cpu"
"""``tritonserver --model-config-name`` that selects the embedded configuration."""

DEVICE_VARIABLE: Final = "ADPRIOR_DEVICE"
"""Environment variable by which ``adprior serve --device`` reaches the embedded engine."""

MAX_CONTEXT_BYTES: Final = 256 * 1024
"""A larger user context is refused."""

MAX_TOP_K: Final = 1000

MAX_CANDIDATES: Final = 10_000
"""Candidates of one ranking; more are refused."""

MAX_EXCLUDED: Final = 100_000
"""Advertisers that one forecast may exclude; more are refused."""

MAX_BATCH_SIZE: Final = 16

MAX_QUEUE_SIZE: Final = 256
"""Requests of one priority that wait for one model; a further one is refused with UNAVAILABLE.

TensorRT-LLM takes requests as they come, and makes this the size of a queue of its own; beyond it a
request is refused with INTERNAL.
"""

QUEUE_TIMEOUT_US: Final = 5_000_000
"""How long one waits; a client's deadline, which it sends along, cuts that short.

It holds for queues of Triton's. It does not run while a request waits inside TensorRT-LLM, which
empties that queue at once (``model_instance_state.cc``: ``enqueue``; docs/gpu.md).
"""

BULK_QUEUE_TIMEOUT_US: Final = 60_000_000
"""How long one of bulk work waits, which lets all others go first."""

GRPC_KEY_PREFIX: Final = "triton-grpc-protocol-"
"""Begins the names of the metadata in which tritonserver looks for a token; HTTP has no prefix."""

ADMIN_KEY: Final = "admin-key"
INFERENCE_KEY: Final = "inference-key"
"""The rest of those names: for what changes the server, and for everything that asks it."""

MAX_QUEUE_DELAY_US: Final = 500
"""How long a request may wait for others to share its batch."""

THREADS_PARAMETER: Final = "threads"
"""Parameter of the embedded ``llm_engine``: threads of one forward pass."""


class Target(StrEnum):
    """Which machine a configuration is rendered for."""

    GPU = "gpu"
    CPU = "cpu"


class CandidateStatus(IntEnum):
    """What a candidate's log-probability is (tensor ``CANDIDATE_STATUS``)."""

    EXACT = 0
    UPPER_BOUND = 1
    NOT_IN_CATALOGUE = 2


class ContextCount(IntEnum):
    """Places of the counts in ``CONTEXT_USE``; a new one comes last, and a reader ignores it."""

    EVENTS = 0
    AFTER_AS_OF = 1
    OVER_BUDGET = 2
    ADVERTISERS = 3
    KNOWN_ADVERTISERS = 4
    PROFILE_KEYS = 5
    DENIED_KEYS = 6
    UNKNOWN_KEYS = 7


UNCOUNTED: Final = -1
"""A count of ``CONTEXT_USE`` that the bundle says nothing of."""


class Priority(IntEnum):
    """Who goes first where requests wait: the parameter ``priority`` of a request, Triton's levels.

    A request that says none has the middle one. It is a courtesy among callers, not a right:
    the server takes everyone's word for it.
    """

    RANKING = 1
    RETRIEVAL = 2
    BULK = 3


# --- models ---
ADVERTISER_RETRIEVAL: Final = "advertiser_retrieval"
ADVERTISER_RANKING: Final = "advertiser_ranking"
TOKENIZER: Final = "tokenizer"
LLM_ENGINE: Final = "llm_engine"
ADVERTISER_DECODER: Final = "advertiser_decoder"
PRIOR_HEAD: Final = "prior_head"

# --- tensors: ours in upper case, those of the engine and of TensorRT-LLM in lower case ---
USER_CONTEXT: Final = "USER_CONTEXT"
TOP_K: Final = "TOP_K"
EXCLUDED_ADVERTISER_IDS: Final = "EXCLUDED_ADVERTISER_IDS"
CONTEXT_USE: Final = "CONTEXT_USE"
INPUT_IDS: Final = "input_ids"
INPUT_LENGTHS: Final = "input_lengths"
REQUEST_OUTPUT_LEN: Final = "request_output_len"
BEAM_WIDTH: Final = "beam_width"
END_ID: Final = "end_id"
PAD_ID: Final = "pad_id"
RETURN_LOG_PROBS: Final = "return_log_probs"
OUTPUT_IDS: Final = "output_ids"
SEQUENCE_LENGTH: Final = "sequence_length"
CUM_LOG_PROBS: Final = "cum_log_probs"
FRONTIER_LOG_PROBS: Final = "frontier_log_probs"
FRONTIER_LOG_MASS: Final = "frontier_log_mass"
SCORED_LOG_PROBS: Final = "scored_log_probs"
SCORED_EXACT: Final = "scored_exact"
ADVERTISER_IDS: Final = "ADVERTISER_IDS"
LOG_PROBS: Final = "LOG_PROBS"
ADVERTISER_NAMES: Final = "ADVERTISER_NAMES"
EXACT: Final = "EXACT"
MISSING_MASS: Final = "MISSING_MASS"
BUNDLE_ID: Final = "BUNDLE_ID"
ANSWER_VERSION: Final = "CONTRACT_VERSION"
ADJUSTMENT_LIMIT: Final = "ADJUSTMENT_LIMIT"
CANDIDATE_ADVERTISER_IDS: Final = "CANDIDATE_ADVERTISER_IDS"
BASE_LOGITS: Final = "BASE_LOGITS"
ADJUSTED_LOGITS: Final = "ADJUSTED_LOGITS"
ADJUSTMENTS: Final = "ADJUSTMENTS"
CANDIDATE_LOG_PROBS: Final = "CANDIDATE_LOG_PROBS"
CANDIDATE_STATUS: Final = "CANDIDATE_STATUS"
PRIOR_FEATURES: Final = "PRIOR_FEATURES"

MOST_VALUES: Final = {
    CANDIDATE_ADVERTISER_IDS: MAX_CANDIDATES,
    BASE_LOGITS: MAX_CANDIDATES,
    EXCLUDED_ADVERTISER_IDS: MAX_EXCLUDED,
    ADVERTISER_IDS: MAX_TOP_K,
    LOG_PROBS: MAX_TOP_K,
}
"""The most values of an input; a request with more is refused before any work is spent on it."""


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
_FRONTIER = (
    _tensor(FRONTIER_LOG_PROBS, "FP32", -1),
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


_TENSORRT_LLM_PARAMETERS = {
    "gpt_model_type": "inflight_fused_batching",
    # Where the container mounts the repository, and a width for want of a bundle: a build with an
    # engine puts its own here. Without a width the backend would take 1.
    "gpt_model_path": f"/models/{LLM_ENGINE}/1",
    "max_beam_width": "32",
    "decoding_mode": "beam_search",
    "batch_scheduler_policy": "guaranteed_no_evict",
    "enable_kv_cache_reuse": "true",
    "exclude_input_in_output": "true",
    "normalize_log_probs": "false",  # true would divide a sequence's log-probability by its length
    # The backend reads these three without a default and fails to load where one is absent.
    "guided_decoding_backend": "",
    "tokenizer_dir": "",
    "xgrammar_tokenizer_info_path": "",
}


def _tokenizer(_: Target) -> Model:
    # What follows the prompt is for a caller of this model alone; no ensemble hands it on.
    told = (_CONTEXT_USE, _BUNDLE_ID, _ANSWER_VERSION)
    return Model(name=TOKENIZER, inputs=(_USER_CONTEXT,), outputs=(*_PROMPT, *told), scaling=_PAIR)


def _llm_engine(target: Target) -> Model:
    if target is Target.CPU:
        return Model(
            name=LLM_ENGINE,
            inputs=(*_PROMPT, _TOP_K, *_optional((_CANDIDATES,)), _EXCLUDED),
            outputs=(*_BEAMS, *_FRONTIER, *_SCORED),
            scaling=_PAIR,
        )
    return Model(
        name=LLM_ENGINE,
        backend="tensorrtllm",
        inputs=_as_scalars(_PROMPT),
        outputs=_BEAMS,
        parameters=_TENSORRT_LLM_PARAMETERS,
    )


def _advertiser_decoder(_: Target) -> Model:
    return Model(
        name=ADVERTISER_DECODER,
        inputs=(*_BEAMS, *_optional(_FRONTIER), _TOP_K, _EXCLUDED),
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
MODEL_NAMES: Final = tuple(_MODELS)


def model(name: str, target: Target) -> Model:
    """Return the spec of model ``name`` as it is deployed on ``target``."""
    return _MODELS[name](target)


def models(target: Target) -> tuple[Model, ...]:
    """Return every model of the repository as deployed on ``target``, steps before ensembles."""
    return tuple(make(target) for make in _MODELS.values())
