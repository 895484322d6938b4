"""The names under which Prometheus has a metric."""

from __future__ import annotations

from adprior_runtime.triton.metrics import Kind, Metric


def series_names(metric: Metric) -> tuple[str, ...]:
    """Return a metric's names: a histogram has three."""
    if metric.kind is not Kind.HISTOGRAM:
        return (metric.name,)
    return tuple(f"{metric.name}_{part}" for part in ("bucket", "sum", "count"))
