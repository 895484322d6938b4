"""What the Python models show at the server's ``/metrics``: every metric, defined once.

Names follow Prometheus: ``adprior_`` first, base units, counters end in ``_total``. Each series has
the labels `MODEL_LABEL` and `INSTANCE_LABEL` too: instances of a model are processes of their own,
a gauge of one is not the other's, and Triton would take a series that they shared from all of them
when one goes. PromQL sums over them. No label holds what a request holds; all values are bounded,
and listed here.

Needs no tritonserver: `recorder` counts, `backend` registers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from adprior_runtime.contract import (
    ADVERTISER_DECODER,
    LLM_ENGINE,
    PRIOR_HEAD,
    TOKENIZER,
    CandidateStatus,
)
from adprior_runtime.errors import InvalidReason
from adprior_runtime.forecast.beams import DropReason
from adprior_runtime.forecast.drift import POPULARITY_BINS

MODEL_LABEL: Final = "model"
INSTANCE_LABEL: Final = "model_instance"


class Kind(StrEnum):
    """Prometheus's type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Exactness(StrEnum):
    """Whether every number of an answer is proved to be exact."""

    EXACT = "true"
    BOUNDED = "false"


class DroppedEvent(StrEnum):
    """Why an event of a user's history is not in the prompt."""

    AFTER_AS_OF = "after_as_of"
    OVER_BUDGET = "over_budget"


class Known(StrEnum):
    """Whether the catalogue has an advertiser of a history."""

    KNOWN = "true"
    UNKNOWN = "false"


class KeyUse(StrEnum):
    """What becomes of a key of a profile."""

    KNOWN = "known"
    """Training saw it too."""
    UNKNOWN = "unknown"
    DENIED = "denied"
    """The template keeps it out of the prompt."""


class ExtensionPurpose(StrEnum):
    """What tokens beyond the prompt went through the model for."""

    SEARCH = "search"
    CANDIDATES = "candidates"


class FailureReason(StrEnum):
    """Why a well-formed request got no answer."""

    CANCELLED = "cancelled"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: As at ``/metrics``.
        kind: Its type.
        told: Its line of help.
        models: The models that have it.
        label: A label of its own, if any.
        values: All values that label can have; empty where the bundle gives the one value.
        buckets: Upper bounds of a histogram's buckets.
    """

    name: str
    kind: Kind
    told: str
    models: tuple[str, ...]
    label: str = ""
    values: tuple[str, ...] = ("",)
    buckets: tuple[float, ...] = ()


_ALL: Final = (TOKENIZER, LLM_ENGINE, ADVERTISER_DECODER, PRIOR_HEAD)

BUNDLE_INFO: Final = Metric(
    name="adprior_bundle_info",
    kind=Kind.GAUGE,
    told="Always 1; the bundle that this model serves.",
    models=_ALL,
    label="bundle_id",
    values=(),
)
INVALID_REQUESTS: Final = Metric(
    name="adprior_invalid_requests_total",
    kind=Kind.COUNTER,
    told="Requests refused with INVALID_ARGUMENT, by what is wrong with them.",
    models=_ALL,
    label="reason",
    values=tuple(InvalidReason),
)
FAILED_REQUESTS: Final = Metric(
    name="adprior_failed_requests_total",
    kind=Kind.COUNTER,
    told="Well-formed requests without an answer: nobody waited any more, or a fault of ours.",
    models=_ALL,
    label="reason",
    values=tuple(FailureReason),
)
PROMPT_TOKENS: Final = Metric(
    name="adprior_prompt_tokens_total",
    kind=Kind.COUNTER,
    told="Tokens of the prompts.",
    models=(TOKENIZER,),
)
EVENTS: Final = Metric(
    name="adprior_events_total",
    kind=Kind.COUNTER,
    told="Events in the histories that came, dropped ones included.",
    models=(TOKENIZER,),
)
DROPPED_EVENTS: Final = Metric(
    name="adprior_dropped_events_total",
    kind=Kind.COUNTER,
    told="Events not in the prompt: after as_of, or the oldest ones beyond its budget.",
    models=(TOKENIZER,),
    label="reason",
    values=tuple(DroppedEvent),
)
HISTORY_ADVERTISERS: Final = Metric(
    name="adprior_history_advertisers_total",
    kind=Kind.COUNTER,
    told="Advertisers that prompts show of histories, each once a prompt, by whether the catalogue "
    "has them.",
    models=(TOKENIZER,),
    label="known",
    values=tuple(Known),
)
PROFILE_KEYS: Final = Metric(
    name="adprior_profile_keys_total",
    kind=Kind.COUNTER,
    told="Keys of the profiles that came: seen in training, not seen, or denied by the template.",
    models=(TOKENIZER,),
    label="use",
    values=tuple(KeyUse),
)
EXTENDED_TOKENS: Final = Metric(
    name="adprior_extended_tokens_total",
    kind=Kind.COUNTER,
    told="Tokens beyond the prompt that went through the language model, by purpose.",
    models=(LLM_ENGINE,),
    label="purpose",
    values=tuple(ExtensionPurpose),
)
BEAMS: Final = Metric(
    name="adprior_beams_total",
    kind=Kind.COUNTER,
    told="Beams that were decoded.",
    models=(ADVERTISER_DECODER,),
)
DROPPED_BEAMS: Final = Metric(
    name="adprior_dropped_beams_total",
    kind=Kind.COUNTER,
    told="Beams that add nothing to a forecast, by reason.",
    models=(ADVERTISER_DECODER,),
    label="reason",
    values=tuple(DropReason),
)
ANSWERS: Final = Metric(
    name="adprior_answers_total",
    kind=Kind.COUNTER,
    told="Forecasts (advertiser_decoder) and rankings (prior_head), by whether all is exact: "
    "the forecast certified, no candidate's prior a mere bound.",
    models=(ADVERTISER_DECODER, PRIOR_HEAD),
    label="exact",
    values=tuple(Exactness),
)
MISSING_MASS: Final = Metric(
    name="adprior_missing_mass_ratio",
    kind=Kind.HISTOGRAM,
    told="Bound of the catalogue's probability that a forecast does not show.",
    models=(ADVERTISER_DECODER,),
    buckets=(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
)
FORECAST_SHARE: Final = Metric(
    name="adprior_forecast_share_total",
    kind=Kind.COUNTER,
    told="Forecasts, each split by the probability it shows over tenths of the bundle's "
    "popularity: 1 has the most popular advertisers.",
    models=(ADVERTISER_DECODER,),
    label="popularity_decile",
    values=tuple(str(number) for number in range(1, POPULARITY_BINS + 1)),
)
FORECAST_DRIFT: Final = Metric(
    name="adprior_forecast_drift_psi",
    kind=Kind.GAUGE,
    told="Population stability index of the advertisers shown of late against the bundle's "
    "popularity, over its deciles.",
    models=(ADVERTISER_DECODER,),
)
CANDIDATES: Final = Metric(
    name="adprior_candidates_total",
    kind=Kind.COUNTER,
    told="Candidates ranked, by what is known of them.",
    models=(PRIOR_HEAD,),
    label="status",
    values=tuple(status.name.lower() for status in CandidateStatus),
)

METRICS: Final = (
    BUNDLE_INFO,
    INVALID_REQUESTS,
    FAILED_REQUESTS,
    PROMPT_TOKENS,
    EVENTS,
    DROPPED_EVENTS,
    HISTORY_ADVERTISERS,
    PROFILE_KEYS,
    EXTENDED_TOKENS,
    BEAMS,
    DROPPED_BEAMS,
    ANSWERS,
    MISSING_MASS,
    FORECAST_SHARE,
    FORECAST_DRIFT,
    CANDIDATES,
)


def metrics_of(model: str) -> tuple[Metric, ...]:
    """Return the metrics that a model has."""
    return tuple(metric for metric in METRICS if model in metric.models)


def series_names(metric: Metric) -> tuple[str, ...]:
    """Return the names under which Prometheus has a metric: a histogram has three."""
    if metric.kind is not Kind.HISTOGRAM:
        return (metric.name,)
    return tuple(f"{metric.name}_{part}" for part in ("bucket", "sum", "count"))
