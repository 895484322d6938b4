"""Every metric of the Python models at the server's ``/metrics``, defined once.

Names follow Prometheus: prefix ``adprior_``, base units, counters end in ``_total``. Each series
also has the labels `MODEL_LABEL` and `INSTANCE_LABEL`: each instance of a model is a process of its
own, and Triton would remove a shared series for all of them when one ends. PromQL sums over them.
No label has a value from a request: all values are listed here.

`metric_series` registers a model's metrics with the server, and `recorder` counts.
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
    """The reason why an event of a history is not in the prompt."""

    AFTER_AS_OF = "after_as_of"
    OVER_BUDGET = "over_budget"


class Known(StrEnum):
    """Whether an advertiser of a history is in the catalogue."""

    KNOWN = "true"
    UNKNOWN = "false"


class KeyUse(StrEnum):
    """The use of a profile's key.

    Attributes:
        KNOWN: Training saw it.
        UNKNOWN: Training did not see it.
        DENIED: The template keeps it out of the prompt.
    """

    KNOWN = "known"
    UNKNOWN = "unknown"
    DENIED = "denied"


class ExtensionPurpose(StrEnum):
    """The reason why tokens beyond the prompt went through the model."""

    SEARCH = "search"
    CANDIDATES = "candidates"
    INTERESTS = "interests"


class FailureReason(StrEnum):
    """The reason why a well-formed request got no answer."""

    CANCELLED = "cancelled"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: Its name at ``/metrics``.
        kind: Its type.
        description: Its help text at ``/metrics``.
        models: The models that have it.
        label: A label of its own, if any.
        values: All values of that label; empty if the only value comes from the bundle.
        buckets: Upper bounds of a histogram's buckets.
    """

    name: str
    kind: Kind
    description: str
    models: tuple[str, ...]
    label: str = ""
    values: tuple[str, ...] = ("",)
    buckets: tuple[float, ...] = ()


_ALL: Final = (TOKENIZER, LLM_ENGINE, ADVERTISER_DECODER, PRIOR_HEAD)

BUNDLE_INFO: Final = Metric(
    name="adprior_bundle_info",
    kind=Kind.GAUGE,
    description="Always 1; the bundle that this model serves.",
    models=_ALL,
    label="bundle_id",
    values=(),
)
INVALID_REQUESTS: Final = Metric(
    name="adprior_invalid_requests_total",
    kind=Kind.COUNTER,
    description="Requests refused with INVALID_ARGUMENT, by what is wrong with them.",
    models=_ALL,
    label="reason",
    values=tuple(InvalidReason),
)
FAILED_REQUESTS: Final = Metric(
    name="adprior_failed_requests_total",
    kind=Kind.COUNTER,
    description="Well-formed requests without an answer: cancelled, or an internal error.",
    models=_ALL,
    label="reason",
    values=tuple(FailureReason),
)
DIRECT_REQUESTS: Final = Metric(
    name="adprior_direct_requests_total",
    kind=Kind.COUNTER,
    description="Answers to callers that ask this model itself, and get no forecast.",
    models=(TOKENIZER,),
)
PROMPT_TOKENS: Final = Metric(
    name="adprior_prompt_tokens_total",
    kind=Kind.COUNTER,
    description="Tokens of the prompts.",
    models=(TOKENIZER,),
)
EVENTS: Final = Metric(
    name="adprior_events_total",
    kind=Kind.COUNTER,
    description="Events in the histories received, dropped ones included.",
    models=(TOKENIZER,),
)
DROPPED_EVENTS: Final = Metric(
    name="adprior_dropped_events_total",
    kind=Kind.COUNTER,
    description="Events not in the prompt: after as_of, or the oldest ones, over its budget.",
    models=(TOKENIZER,),
    label="reason",
    values=tuple(DroppedEvent),
)
HISTORY_ADVERTISERS: Final = Metric(
    name="adprior_history_advertisers_total",
    kind=Kind.COUNTER,
    description="Advertisers of histories in prompts, each counted once a prompt, by whether the "
    "catalogue has them.",
    models=(TOKENIZER,),
    label="known",
    values=tuple(Known),
)
PROFILE_KEYS: Final = Metric(
    name="adprior_profile_keys_total",
    kind=Kind.COUNTER,
    description="Keys of profiles received: seen in training, not seen, or denied by the template.",
    models=(TOKENIZER,),
    label="use",
    values=tuple(KeyUse),
)
EXTENDED_TOKENS: Final = Metric(
    name="adprior_extended_tokens_total",
    kind=Kind.COUNTER,
    description="Tokens beyond the prompt that went through the language model, by purpose.",
    models=(LLM_ENGINE,),
    label="purpose",
    values=tuple(ExtensionPurpose),
)
SEARCH_TIME: Final = Metric(
    name="adprior_search_seconds",
    kind=Kind.HISTOGRAM,
    description="Time of an answered request in the language model, without Triton's queue.",
    models=(LLM_ENGINE,),
    # Neighbours differ by a third, so that a percentile between them is off by a few percent.
    buckets=tuple(
        round(step * 10.0**power, 6)
        for power in range(-3, 2)
        for step in (1, 1.3, 1.8, 2.4, 3.2, 4.2, 5.6, 7.5)
    ),
)
BEAMS: Final = Metric(
    name="adprior_beams_total",
    kind=Kind.COUNTER,
    description="Beams that were decoded.",
    models=(ADVERTISER_DECODER,),
)
DROPPED_BEAMS: Final = Metric(
    name="adprior_dropped_beams_total",
    kind=Kind.COUNTER,
    description="Beams that add nothing to a forecast, by reason.",
    models=(ADVERTISER_DECODER,),
    label="reason",
    values=tuple(DropReason),
)
ANSWERS: Final = Metric(
    name="adprior_answers_total",
    kind=Kind.COUNTER,
    description=f"Forecasts ({ADVERTISER_DECODER}) and rankings ({PRIOR_HEAD}), by whether they "
    "are exact: the forecast is certified, and no candidate has only an upper bound.",
    models=(ADVERTISER_DECODER, PRIOR_HEAD),
    label="exact",
    values=tuple(Exactness),
)
MISSING_MASS: Final = Metric(
    name="adprior_missing_mass_ratio",
    kind=Kind.HISTOGRAM,
    description="Upper bound on the catalogue's probability that a forecast does not show.",
    models=(ADVERTISER_DECODER,),
    buckets=(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
)
FORECAST_SHARE: Final = Metric(
    name="adprior_forecast_share_total",
    kind=Kind.COUNTER,
    description="Forecasts, each split by probability over tenths of the bundle's popularity: 1 "
    "has the most popular advertisers.",
    models=(ADVERTISER_DECODER,),
    label="popularity_decile",
    values=tuple(str(number) for number in range(1, POPULARITY_BINS + 1)),
)
FORECAST_DRIFT: Final = Metric(
    name="adprior_forecast_drift_psi",
    kind=Kind.GAUGE,
    description="Population stability index of the advertisers shown recently against the bundle's "
    "popularity, over its deciles.",
    models=(ADVERTISER_DECODER,),
)
CANDIDATES: Final = Metric(
    name="adprior_candidates_total",
    kind=Kind.COUNTER,
    description="Candidates ranked, by what is known of their probability.",
    models=(PRIOR_HEAD,),
    label="status",
    values=tuple(status.name.lower() for status in CandidateStatus),
)

METRICS: Final = (
    BUNDLE_INFO,
    INVALID_REQUESTS,
    FAILED_REQUESTS,
    DIRECT_REQUESTS,
    PROMPT_TOKENS,
    EVENTS,
    DROPPED_EVENTS,
    HISTORY_ADVERTISERS,
    PROFILE_KEYS,
    EXTENDED_TOKENS,
    SEARCH_TIME,
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
