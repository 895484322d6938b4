"""The contract: names of models and tensors, limits, and the values that tensors may have.

Nothing else spells these names. `adprior_runtime.repository.model_specs` gives each model its
tensors with types and shapes. The graphs ``model.onnx`` and ``head.onnx`` have tensor names of
their own (`adprior_runtime.engines.onnx_graph`, `adprior_runtime.head.head_graph`). These names
exist inside a graph only: ``log_probs`` there and ``LOG_PROBS`` here never meet. Importing this
module imports the standard library only.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final

CONTRACT_VERSION: Final = "1"
"""Goes up when a tensor changes its meaning, type or shape. Bundles and answers carry it."""

MAX_CONTEXT_BYTES: Final = 256 * 1024
"""A larger user context is refused."""

MAX_TOP_K: Final = 1000
"""Most advertisers of one forecast, and most prefixes of one beam; a bundle may allow fewer (see
`adprior_runtime.search.limits`)."""

MAX_CANDIDATES: Final = 10_000
"""A ranking with more candidates is refused."""

MAX_EXCLUDED: Final = 100_000
"""A forecast that excludes more advertisers is refused."""

MAX_BATCH_SIZE: Final = 16
"""Requests that one instance of a model receives at once."""

MAX_QUEUE_SIZE: Final = 256
"""Number of requests of one priority that may wait for a model. Others are refused, UNAVAILABLE.

TensorRT-LLM has a queue of its own, of the same size, and refuses others with INTERNAL.
"""

QUEUE_TIMEOUT_US: Final = 5_000_000
"""Longest wait in a queue. The client also sends its deadline; the shorter one counts.

It applies to Triton's queues only. TensorRT-LLM takes requests from Triton's queue at once and puts
them into its own (``model_instance_state.cc``: ``enqueue``; docs/gpu.md).
"""

BULK_QUEUE_TIMEOUT_US: Final = 60_000_000
"""Queue timeout of bulk requests, which have the lowest priority."""

GRPC_KEY_PREFIX: Final = "triton-grpc-protocol-"
"""Prefix of the metadata keys in which tritonserver expects a token; HTTP has no prefix."""

ADMIN_KEY: Final = "admin-key"
INFERENCE_KEY: Final = "inference-key"
"""The keys after the prefix, for requests that change the server and for inference."""

MAX_QUEUE_DELAY_US: Final = 500
"""Longest time that a request waits for others to share its batch."""

THREADS_PARAMETER: Final = "threads"
"""Parameter of the Python ``llm_engine``: threads of one forward pass."""

DEVICE_PARAMETER: Final = "device"
"""Parameter of the Python ``llm_engine``: where it computes, ``cuda`` or else the CPU."""


class Target(StrEnum):
    """A configuration of all models: what runs the language model.

    The exact search has two, with the same tensors; their values are also the names of devices.
    """

    TENSORRT_LLM = "tensorrt-llm"
    CPU = "cpu"
    CUDA = "cuda"

    @property
    def config_name(self) -> str | None:
        """Value of ``tritonserver --model-config-name``; None for ``config.pbtxt`` itself."""
        return None if self is Target.TENSORRT_LLM else self.value

    @property
    def config_file(self) -> str:
        """The file in a model's directory. Triton reads ``config.pbtxt`` if there is none."""
        return f"configs/{self.config_name}.pbtxt" if self.config_name else "config.pbtxt"


EXACT_TARGETS: Final = (Target.CPU, Target.CUDA)
"""The configurations of the exact search, in which every model runs in the Python backend."""


class CandidateStatus(IntEnum):
    """Kind of a candidate's log-probability (tensor ``CANDIDATE_STATUS``)."""

    EXACT = 0
    UPPER_BOUND = 1
    NOT_IN_CATALOGUE = 2


class ContextCount(IntEnum):
    """Positions of the counts in ``CONTEXT_USE``. New ones come last; older readers ignore them."""

    EVENTS = 0
    AFTER_AS_OF = 1
    OVER_BUDGET = 2
    ADVERTISERS = 3
    KNOWN_ADVERTISERS = 4
    PROFILE_KEYS = 5
    DENIED_KEYS = 6
    UNKNOWN_KEYS = 7


UNCOUNTED: Final = -1
"""Value in ``CONTEXT_USE`` where the bundle has no data to count with."""


class Priority(IntEnum):
    """Priority of a request in the queues: Triton's request parameter ``priority``.

    The default is RETRIEVAL. The server does not check who uses which priority.
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

MODEL_NAMES: Final = (
    TOKENIZER,
    LLM_ENGINE,
    ADVERTISER_DECODER,
    PRIOR_HEAD,
    ADVERTISER_RETRIEVAL,
    ADVERTISER_RANKING,
)
"""Steps before ensembles."""

# --- tensors: the engine's and TensorRT-LLM's in lower case, all others in upper case ---
USER_CONTEXT: Final = "USER_CONTEXT"
TOP_K: Final = "TOP_K"
INTEREST_TOP_K: Final = "INTEREST_TOP_K"
EXCLUDED_ADVERTISER_IDS: Final = "EXCLUDED_ADVERTISER_IDS"
CONTEXT_USE: Final = "CONTEXT_USE"
PROOF_MARGIN: Final = "PROOF_MARGIN"
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
PROVED_TOP_K: Final = "proved_top_k"
FRONTIER_LOG_MASS: Final = "frontier_log_mass"
INTEREST_OUTPUT_IDS: Final = "interest_output_ids"
INTEREST_SEQUENCE_LENGTH: Final = "interest_sequence_length"
INTEREST_CUM_LOG_PROBS: Final = "interest_cum_log_probs"
SCORED_LOG_PROBS: Final = "scored_log_probs"
SCORED_EXACT: Final = "scored_exact"
ADVERTISER_IDS: Final = "ADVERTISER_IDS"
LOG_PROBS: Final = "LOG_PROBS"
ADVERTISER_NAMES: Final = "ADVERTISER_NAMES"
INTEREST_IDS: Final = "INTEREST_IDS"
INTEREST_LOG_PROBS: Final = "INTEREST_LOG_PROBS"
INTEREST_NAMES: Final = "INTEREST_NAMES"
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

CONTEXT_READING: Final = (CONTEXT_USE, PROOF_MARGIN, BUNDLE_ID, ANSWER_VERSION)
"""The tokenizer's outputs for callers that ask it alone; no ensemble takes them."""

MAX_VALUES: Final = {
    CANDIDATE_ADVERTISER_IDS: MAX_CANDIDATES,
    BASE_LOGITS: MAX_CANDIDATES,
    EXCLUDED_ADVERTISER_IDS: MAX_EXCLUDED,
    ADVERTISER_IDS: MAX_TOP_K,
    LOG_PROBS: MAX_TOP_K,
}
"""Largest number of values of an input; a request with more is refused before any work."""
