"""Registers the metrics of one model instance with the server: a series for each label's value."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from adprior_runtime.triton.metrics import INSTANCE_LABEL, MODEL_LABEL, metrics_of

_log = logging.getLogger("adprior")

Series = tuple[str, str]
"""A metric's name and the value of its own label, "" if it has none."""


class Sink(Protocol):
    """One series of the server: ``pb_utils.MetricFamily.Metric``."""

    def increment(self, value: float) -> None:
        """Add to a counter."""

    def set(self, value: float) -> None:
        """Set a gauge."""

    def observe(self, value: float) -> None:
        """Add one value to a histogram."""


def register_metrics(
    make_family: Any, model: str, instance: str, bundle_id: str
) -> tuple[dict[str, Any], dict[Series, Sink]]:
    """Register a model's metrics with the server.

    Without metrics (``--allow-metrics=false``) the model serves all the same.

    Args:
        make_family: ``triton_python_backend_utils.MetricFamily``.
        model: The model's name.
        instance: The instance's name.
        bundle_id: The bundle that it serves.

    Returns:
        The families by name, which must outlive the series, and the series.
    """
    families: dict[str, Any] = {}
    sinks: dict[Series, Sink] = {}
    own = {MODEL_LABEL: model, INSTANCE_LABEL: instance}
    try:
        for metric in metrics_of(model):
            kind = getattr(make_family, metric.kind.name)
            family = make_family(name=metric.name, description=metric.description, kind=kind)
            families[metric.name] = family
            buckets = {"buckets": list(metric.buckets)} if metric.buckets else {}
            for value in metric.values or (bundle_id,):
                labels = own | ({metric.label: value} if metric.label else {})
                sinks[metric.name, value] = family.Metric(labels=labels, **buckets)
    except Exception as error:  # noqa: BLE001  a model without metrics is better than none
        _log.warning("%s: the server takes no metrics: %s", model, type(error).__name__)
    return families, sinks
