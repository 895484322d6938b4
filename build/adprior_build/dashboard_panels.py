"""What the dashboard shows: rows of panels, each with its PromQL.

They ask what is at ``/metrics`` (`adprior_runtime.triton.metrics`; names in ``nv_`` are Triton's
own) and what ``deploy/prometheus/alerts.yml`` records. `dashboard` renders them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["ROWS", "Panel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One graph over time.

    Attributes:
        title: Its title.
        told: What it shows, and what to make of it.
        queries: PromQL by legend; ``$OF`` selects the servers chosen in the dashboard.
        unit: Grafana's name of a unit.
        stacked: Whether the series add up to a whole.
        most: The axis ends there, if it does.
    """

    title: str
    told: str
    queries: Mapping[str, str]
    unit: str = "short"
    stacked: bool = False
    most: float | None = None


def _rate(metric: str, labels: str = "", by: str = "") -> str:
    chosen = f"{labels},$OF" if labels else "$OF"
    return f"sum{f' by ({by}) ' if by else ''}(rate({metric}{{{chosen}}}[$__rate_interval]))"


def _shares(metric: str, by: str, whole: str = "") -> str:
    return f"{_rate(metric, by=by)} / on () group_left () {_rate(whole or metric)}"


def _mean(total: str, number: str, labels: str) -> str:
    return f"{_rate(total, labels, 'model')} / {_rate(number, labels, 'model')}"


_RETRIEVAL: Final = 'model="advertiser_retrieval"'
_RANKING: Final = 'model="advertiser_ranking"'
_ANSWERING: Final = 'model=~"advertiser_retrieval|advertiser_ranking|prior_head"'
_STEPS: Final = 'model=~"tokenizer|llm_engine|advertiser_decoder|prior_head"'
_TOKENIZER: Final = 'model="tokenizer"'
_ENGINE: Final = 'model="llm_engine"'
_HEAD: Final = 'model="prior_head"'
_EXACT: Final = 'exact="true"'
_SUCCESS: Final = "nv_inference_request_success"
_DURATION: Final = "nv_inference_request_duration_us"
_QUEUE: Final = "nv_inference_queue_duration_us"
_COMPUTE: Final = "nv_inference_compute_infer_duration_us"
_MASS: Final = "adprior_missing_mass_ratio"

_TRAFFIC: Final = (
    Panel(
        title="Answers",
        told="Rankings of a forecast at hand are prior_head's, less those of the live ranking.",
        unit="reqps",
        queries={
            "forecasts": _rate(_SUCCESS, _RETRIEVAL),
            "live rankings": _rate(_SUCCESS, _RANKING),
            "rankings of a forecast at hand": (
                f"clamp_min({_rate(_SUCCESS, _HEAD)} - {_rate(_SUCCESS, _RANKING)}, 0)"
            ),
        },
    ),
    Panel(
        title="Time of an answer, mean",
        told="In the server, waiting included. Percentiles are the clients' (docs/clients.md).",
        unit="s",
        queries={"{{model}}": f"{_mean(_DURATION, _SUCCESS, _ANSWERING)} / 1e6"},
    ),
    Panel(
        title="Computing in each step, mean",
        told="Each request of a batch counts the whole batch's time.",
        unit="s",
        queries={"{{model}}": f"{_mean(_COMPUTE, _SUCCESS, _STEPS)} / 1e6"},
    ),
    Panel(
        title="Waiting before each step, mean",
        told="AdpriorQueueing fires at 100 ms before llm_engine.",
        unit="s",
        queries={"{{model}}": f"{_mean(_QUEUE, _SUCCESS, _STEPS)} / 1e6"},
    ),
    Panel(
        title="Requests that wait",
        told="A full queue refuses: adprior_runtime.contract.MAX_QUEUE_SIZE.",
        queries={
            "{{model}}": f"sum by (model) (nv_inference_pending_request_count{{{_STEPS},$OF}})"
        },
    ),
    Panel(
        title="Requests per execution",
        told="What batching does: 1 is none.",
        queries={"{{model}}": _mean("nv_inference_count", "nv_inference_exec_count", _STEPS)},
    ),
)
_FAILURES: Final = (
    Panel(
        title="Requests without an answer",
        told="Of an ensemble Triton says OTHER for every kind; the panels beside this say which.",
        unit="reqps",
        queries={
            "{{model}} {{reason}}": (
                f"{_rate('nv_inference_request_failure', by='model, reason')} > 0"
            )
        },
    ),
    Panel(
        title="Malformed requests, by what is wrong",
        told="The callers'. adprior_runtime.errors.InvalidReason says what each means.",
        unit="reqps",
        queries={
            "{{model}} {{reason}}": _rate("adprior_invalid_requests_total", by="model, reason")
        },
    ),
    Panel(
        title="Well-formed requests that failed in a model",
        told="cancelled: nobody waited any more. internal: a fault of ours, AdpriorInternalErrors.",
        unit="reqps",
        queries={
            "{{model}} {{reason}}": _rate("adprior_failed_requests_total", by="model, reason")
        },
    ),
)
_FORECASTS: Final = (
    Panel(
        title="Share of exact answers",
        told="advertiser_decoder: forecasts certified. prior_head: rankings without a mere bound. "
        "Stock beam search on TensorRT-LLM certifies nothing.",
        unit="percentunit",
        most=1,
        queries={
            "{{model}}": f"{_rate('adprior_answers_total', _EXACT, 'model')}"
            f" / {_rate('adprior_answers_total', by='model')}"
        },
    ),
    Panel(
        title="Missing mass",
        told="At most so much of the catalogue's probability is not shown.",
        unit="percentunit",
        most=1,
        queries={"mean": f"{_rate(f'{_MASS}_sum')} / {_rate(f'{_MASS}_count')}"}
        | {
            f"{share:.0%}": f"histogram_quantile({share}, {_rate(f'{_MASS}_bucket', by='le')})"
            for share in (0.1, 0.5, 0.9)
        },
    ),
    Panel(
        title="Drift: population stability index",
        told="Against the server's own last week (AdpriorForecastDrift fires at 0.1), and against "
        "the bundle's popularity, whose level is the bundle's own: only its changes tell.",
        queries={
            "{{instance}}, against its week": "adprior:forecast_drift_psi:rate1h_rate7d{$OF}",
            "{{instance}}, against the bundle": (
                "avg by (instance) (adprior_forecast_drift_psi{$OF})"
            ),
        },
    ),
    Panel(
        title="Forecasts by decile of popularity",
        told="1 has the most popular advertisers. Which part has moved, when the index does.",
        unit="percentunit",
        stacked=True,
        most=1,
        queries={
            "{{popularity_decile}}": _shares("adprior_forecast_share_total", "popularity_decile")
        },
    ),
)
_INPUTS: Final = (
    Panel(
        title="Tokens of a forecast",
        told="What the language model computes for one: its prompt, and the search beyond it.",
        queries={
            "prompt": f"{_rate('adprior_prompt_tokens_total')} / {_rate(_SUCCESS, _TOKENIZER)}",
            "{{purpose}}": f"{_rate('adprior_extended_tokens_total', by='purpose')}"
            f" / on () group_left () {_rate(_SUCCESS, _ENGINE)}",
        },
    ),
    Panel(
        title="Events not in the prompt",
        told="after_as_of: clocks or pipelines differ. over_budget: the oldest of long histories.",
        unit="percentunit",
        most=1,
        queries={
            "{{reason}}": _shares("adprior_dropped_events_total", "reason", "adprior_events_total")
        },
    ),
    Panel(
        title="What histories and profiles name, by whether the model knows it",
        told="Many unknown: they are spelt otherwise than in the catalogue or in training.",
        unit="percentunit",
        most=1,
        queries={
            "advertisers, known: {{known}}": _shares("adprior_history_advertisers_total", "known"),
            "profile keys, {{use}}": _shares("adprior_profile_keys_total", "use"),
        },
    ),
    Panel(
        title="Candidates, by what is known of them",
        told="Many that are not in the catalogue: build with the present catalogue.",
        unit="percentunit",
        stacked=True,
        most=1,
        queries={"{{status}}": _shares("adprior_candidates_total", "status")},
    ),
    Panel(
        title="Beams that add nothing",
        told="None on the embedded engine, which searches the catalogue only.",
        unit="percentunit",
        most=1,
        queries={
            "{{reason}}": _shares("adprior_dropped_beams_total", "reason", "adprior_beams_total")
        },
    ),
)
_SERVERS: Final = (
    Panel(
        title="Servers by bundle",
        told="During a rollout there are two.",
        stacked=True,
        queries={
            "{{bundle_id}}": "count by (bundle_id) (count by (bundle_id, instance) "
            "(adprior_bundle_info{$OF}))",
            "down": "count(up{$OF} == 0) or vector(0)",
        },
    ),
    Panel(
        title="CPU",
        told="Of the whole machine.",
        unit="percentunit",
        most=1,
        queries={"{{instance}}": "nv_cpu_utilization{$OF}"},
    ),
    Panel(
        title="Memory",
        told="Of the whole machine.",
        unit="bytes",
        queries={"{{instance}}": "nv_cpu_memory_used_bytes{$OF}"},
    ),
)
ROWS: Final = {
    "Traffic": _TRAFFIC,
    "Failures": _FAILURES,
    "Forecasts": _FORECASTS,
    "What comes in": _INPUTS,
    "Servers": _SERVERS,
}
"""The dashboard: rows of panels."""
