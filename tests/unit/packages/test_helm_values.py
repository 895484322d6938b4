"""The values that the Helm chart refuses, each in one line."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from support.helm_chart import CHART, change, render

helm = pytest.importorskip("helm_python", reason="adprior[dev] has it")

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


def _resolve(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "").removeprefix("#/$defs/")
    return {**SCHEMA["$defs"][reference], **schema} if reference else schema


def _check_keys(values: dict[str, Any], schema: dict[str, Any]) -> None:
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) - {"global"} == set(values)
    for key, value in values.items():
        below = _resolve(schema["properties"][key])
        if isinstance(value, dict) and value and "properties" in below:
            _check_keys(value, below)


def test_the_schema_knows_exactly_the_values() -> None:
    _check_keys(VALUES, SCHEMA)


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("image", None, "at '/image': '' does not match"),
        ("image", "adprior", "at '/image': 'adprior' does not match"),
        ("target", "gpu", "at '/target': value must be one of 'cpu', 'cuda', 'tensorrt-llm'"),
        ("replicas", "two", "at '/replicas': got string, want integer"),
        ("replicas", 0, "at '/replicas': minimum: got 0, want 1"),
        ("replica", 3, "at '': additional properties 'replica' not allowed"),
        ("repository.volume", {"nfs": {}}, "at '/repository/volume': additional properties 'nfs'"),
        ("repository.volume.image", {}, "at '/repository/volume': maxProperties: got 2, want 1"),
        ("repository.subPath", "/blue", "at '/repository/subPath': '/blue' does not match"),
        ("repository.url", "models", "at '/repository/url': 'models' does not match"),
        ("repository.version", "latest", "at '/repository/version': 'latest' does not match"),
        ("drainSeconds", 1, "at '/drainSeconds': minimum: got 1, want 2"),
        ("resources.limits", {"memory": "4 GB"}, "at '/resources/limits/memory': '4 GB' does not"),
        ("networkPolicy.callers", [{}], "at '/networkPolicy/callers/0': minProperties: got 0"),
        ("autoscaling.by", "vpa", "at '/autoscaling/by': value must be one of '', 'hpa', 'keda'"),
        ("tls.key", "k", "at '/tls': additional properties 'key' not allowed"),
    ],
)
def test_the_schema_refuses_a_wrong_value_in_one_line(path: str, value: Any, found: str) -> None:
    with pytest.raises(helm.HelmError) as refused:
        render(change(path, value))
    heading, chart, line = str(refused.value).strip().splitlines()
    assert "values don't meet the specifications" in heading
    assert chart == "adprior:"
    assert line.startswith(f"- {found}")


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        ("repository.volume", {}, "repository: give volume or url, and not both"),
        ("repository.url", "s3://models/a", "repository: give volume or url, and not both"),
        ("repository.version", "3fa9c2e01b7d", "repository: url and version go together"),
        ("plainText", False, "tls.secret is empty and plainText is false"),
        ("tls.secret", "a", "plainText is true, and tls.secret is given: choose one"),
        ("tls.mutual", True, "tls.mutual needs tls.secret"),
        ("tokens.admin", True, "tokens.admin needs tokens.secret"),
        ("monitoring.alerts", True, "monitoring.alerts needs monitoring.enabled"),
        ("autoscaling.by", "hpa", "autoscaling.by is hpa, which needs monitoring.enabled"),
        ("autoscaling.minReplicas", 9, "autoscaling.minReplicas is 9, expected at most"),
        ("bulk.enabled", True, "bulk.enabled needs bulk.image"),
    ],
)
def test_values_that_contradict_each_other_are_refused_in_one_line(
    path: str, value: Any, found: str
) -> None:
    with pytest.raises(helm.HelmError) as refused:
        render(change(path, value))
    assert re.fullmatch(rf"execution error at \(\S+\): {re.escape(found)}.*", str(refused.value))
