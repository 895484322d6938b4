"""The Helm chart, rendered by Helm's own engine, and its golden files."""

from __future__ import annotations

import difflib
import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from support.paths import ROOT

CHART: Final = ROOT / "deploy" / "helm" / "adprior"
EXAMPLES: Final = {path.stem: path for path in sorted((CHART.parent / "examples").glob("*.yaml"))}
GOLDEN: Final = Path(__file__).parent / "helm_manifests"
RELEASE: Final = "adprior-blue"
BASE: Final = "cpu"
"""The golden file of this example is complete; the others are differences from it."""


def load_values(example: str) -> dict[str, Any]:
    """Return the values of an example."""
    values: dict[str, Any] = yaml.safe_load(EXAMPLES[example].read_text(encoding="utf-8"))
    return values


def change(path: str, value: Any) -> dict[str, Any]:
    """Return the base example's values with one change; None removes."""
    values = place = load_values(BASE)
    *parents, last = path.split(".")
    for parent in parents:
        place = place.setdefault(parent, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return values


def render_text(values: dict[str, Any]) -> str:
    """Return the manifests of a release with these values, one after another.

    Raises:
        helm_python.HelmError: The chart refuses the values.
    """
    return _render(json.dumps(values))


@cache
def _render(values: str) -> str:
    helm = pytest.importorskip("helm_python", reason="adprior[dev] has it")
    with helm.Chart.load(CHART) as chart:
        files = chart.render(json.loads(values), name=RELEASE, namespace="serving")
    return "\n---\n".join(text.strip() for _, text in sorted(files.items()) if text.strip())


def render(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects of a release with these values."""
    return [each for each in yaml.safe_load_all(render_text(values)) if each]


def find(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Return the only object of a kind."""
    (found,) = (each for each in objects if each["kind"] == kind)
    return found


def pod_templates(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the pods' specifications of the server, and of the bulk job if there is one."""
    pods = [find(objects, "Deployment")["spec"]["template"]["spec"]]
    if jobs := [each for each in objects if each["kind"] == "CronJob"]:
        pods += [job["spec"]["jobTemplate"]["spec"]["template"]["spec"] for job in jobs]
    return pods


def golden_text(example: str) -> str:
    """Return a golden file's text: the manifests, without the rules of deploy/prometheus."""
    text = _without_rules(example)
    if example == BASE:
        return text
    lines = difflib.unified_diff(
        _without_rules(BASE).splitlines(), text.splitlines(), BASE, example, n=1, lineterm=""
    )
    return "".join(f"{line}\n" for line in lines)


def _without_rules(example: str) -> str:
    text = render_text(load_values(example))
    rules = (CHART / "files" / "alerts.yml").read_text(encoding="utf-8")
    indented = "\n".join(f"  {line}" for line in rules.splitlines())
    return text.replace(indented.strip(), "# deploy/prometheus/alerts.yml") + "\n"


def golden_path(example: str) -> Path:
    """Return the path of an example's golden file."""
    return GOLDEN / f"{example}.{'yaml' if example == BASE else 'diff'}"


if __name__ == "__main__":
    for each in EXAMPLES:
        golden_path(each).write_text(golden_text(each), encoding="utf-8")
