"""The Grafana dashboard of adprior servers: ``deploy/grafana/adprior.json``, rendered from here.

``python -m adprior_build.dashboard`` writes it; a test compares. It has Grafana's classic JSON
model. What it shows is in `dashboard_panels`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

from adprior_build.checkout import checkout_directory
from adprior_build.dashboard_panels import ROWS, Panel
from adprior_runtime.text.json_text import to_json

__all__ = ["render"]

_WIDTH: Final = 24
_HEIGHT: Final = 8
_DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_CHOSEN: Final = 'job=~"$job",instance=~"$instance"'
"""The servers that the dashboard's variables name; ``$OF`` in an expression stands for it."""


def render() -> str:
    """Return the dashboard as JSON text."""
    dashboard = {
        "uid": "adprior",
        "title": "adprior",
        "description": "Advertiser forecasts: what is asked, what is answered, and how sure it is.",
        "tags": ["adprior"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "utc",
        "annotations": {"list": []},
        "templating": {"list": [*_variables()]},
        "panels": [*_panels()],
    }
    return to_json(dashboard, indent=2) + "\n"


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    for name, query in (
        ("job", "label_values(adprior_bundle_info, job)"),
        ("instance", 'label_values(adprior_bundle_info{job=~"$job"}, instance)'),
    ):
        yield {
            "name": name,
            "type": "query",
            "datasource": _DATASOURCE,
            "query": query,
            "refresh": 2,  # when the time range changes
            "includeAll": True,
            "multi": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        }


def _panels() -> Iterator[dict[str, Any]]:
    numbers = count(1)
    y = 0
    for title, panels in ROWS.items():
        yield {
            "id": next(numbers),
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1},
            "panels": [],
        }
        y += 1
        columns = 4 if len(panels) == 4 else 3
        width = _WIDTH // columns
        for index, panel in enumerate(panels):
            row, column = divmod(index, columns)
            place = {"x": column * width, "y": y + row * _HEIGHT, "w": width, "h": _HEIGHT}
            yield _panel(panel, next(numbers), place)
        y += -(-len(panels) // columns) * _HEIGHT


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "custom": {
            "fillOpacity": 30 if panel.stacked else 0,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        },
    }
    if panel.most is not None:
        defaults["max"] = panel.most
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.told,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "legend": {
                "displayMode": "list",
                "placement": "bottom",
                "showLegend": True,
                "calcs": [],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _DATASOURCE,
                "expr": expression.replace("$OF", _CHOSEN),
                "legendFormat": legend,
            }
            for index, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


def main(path: Path) -> int:
    """Write the dashboard to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(checkout_directory("deploy/grafana") / "adprior.json"))
