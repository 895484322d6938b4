"""Dashboard, alert rules and the operations page, and the metrics that they use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from adprior_runtime.triton.metrics import Kind, Metric
from support.paths import ROOT

PROMETHEUS: Final = ROOT / "deploy" / "prometheus"
PAGE: Final = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
RULES: Final[list[dict[str, Any]]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
PANELS: Final[list[dict[str, Any]]] = json.loads(
    (ROOT / "deploy" / "grafana" / "adprior.json").read_text(encoding="utf-8")
)["panels"]


def expressions() -> Iterator[str]:
    """Yield every PromQL expression of the dashboard, with values for Grafana's variables."""
    for panel in PANELS:
        for target in panel.get("targets", ()):
            text = target["expr"].replace("$__rate_interval", "1m")
            yield text.replace("$job", "adprior").replace("$instance", ".*")


def series_names(metric: Metric) -> tuple[str, ...]:
    """Return a metric's names in Prometheus: a histogram has three."""
    if metric.kind is not Kind.HISTOGRAM:
        return (metric.name,)
    return tuple(f"{metric.name}_{part}" for part in ("bucket", "sum", "count"))


def find_tool(name: str) -> str:
    """Return a program's path, or skip the test."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here: make system-packages")
    return found
