"""The Helm chart: what it renders, what it refuses, and that its commands exist.

The engine is Helm's own; the schemas are those of the oldest and the newest Kubernetes. No cluster
has run it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import threading
import tomllib
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import yaml

from adprior_bulk.commands import bulk
from adprior_client import ClientConfig
from adprior_runtime.commands import pull, serve
from support.helm_chart import (
    BASE,
    CHART,
    EXAMPLES,
    RELEASE,
    change,
    find,
    golden_path,
    golden_text,
    load_values,
    pod_templates,
    render,
)
from support.monitoring import PROMETHEUS
from support.paths import ROOT
from support.processes import run

helm = pytest.importorskip("helm_python", reason="adprior[dev] has it")
kubernetes = pytest.importorskip("kubernetes_validate", reason="adprior[dev] has it")

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
METADATA: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
OLDEST, NEWEST = "1.30", "1.37"
IMAGE_VOLUMES = "1.31"
"""The first Kubernetes whose volumes may be images."""
CUSTOM = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}
"""Kinds of other makers, without a schema here: only golden files fix their fields."""


@cache
def _validate(text: str, version: str) -> None:
    """Raise ValidationError unless the object, JSON, fits; most examples share most objects."""
    kubernetes.validate(json.loads(text), version, strict=True)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("example", EXAMPLES)
def test_kubernetes_accepts_every_object(example: str, version: str) -> None:
    objects = render(load_values(example))
    if version == OLDEST and "image" in load_values(example)["repository"].get("volume", {}):
        version = IMAGE_VOLUMES
    kinds = set()
    for each in objects:
        kinds.add(each["kind"])
        if each["kind"] not in CUSTOM:
            _validate(json.dumps(each), version)
    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} <= kinds


def test_the_schemas_find_an_unknown_field() -> None:
    deployment = find(render(load_values(BASE)), "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes.ValidationError, match="readynessProbe"):
        kubernetes.validate(deployment, NEWEST, strict=True)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_manifests_are_the_golden_ones(example: str) -> None:
    assert golden_path(example).read_text(encoding="utf-8") == golden_text(example)


@pytest.mark.parametrize("example", EXAMPLES)
def test_helm_lint_finds_nothing_wrong(example: str) -> None:
    report = helm.lint(CHART, load_values(example))
    assert report["errors"] == []
    assert {each["severity"] for each in report["messages"]} <= {1}  # advice: there is no icon


def test_the_chart_has_the_projects_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert METADATA["version"] == METADATA["appVersion"] == project["version"]
    assert METADATA["kubeVersion"].startswith(f">={OLDEST}.0")


@pytest.mark.parametrize("example", EXAMPLES)
def test_adprior_accepts_the_pods_arguments(example: str) -> None:
    for pod in pod_templates(render(load_values(example))):
        name, *options = pod["containers"][0]["args"]
        parser = argparse.ArgumentParser()
        {"serve": serve, "bulk": bulk}[name].add_arguments(parser)
        parsed = parser.parse_args(options)
        if name == "serve":
            assert str(parsed.repository) == "/models"
            assert parsed.no_restart
            assert parsed.http_host == "127.0.0.1"


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_pod_is_locked_down(example: str) -> None:
    for pod in pod_templates(render(load_values(example))):
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        writable = {
            each["mountPath"] for each in container["volumeMounts"] if "readOnly" not in each
        }
        assert writable - {"/shared"} == {"/tmp", "/dev/shm"}
        secrets = [each["secret"] for each in pod["volumes"] if "secret" in each]
        assert all(each["defaultMode"] == 0o440 for each in secrets)  # what file_modes.py accepts


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_pod_drains_longer_than_clients_take_to_notice(example: str) -> None:
    (pod, *_) = pod_templates(render(load_values(example)))
    drain_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert drain_s > ClientConfig(urls=("a:1",)).health_interval_s
    assert pod["terminationGracePeriodSeconds"] > drain_s + 15  # docs/operations.md, Stopping
    shortest = SCHEMA["properties"]["drainSeconds"]["minimum"]
    assert shortest > ClientConfig(urls=("a:1",)).health_interval_s


@pytest.mark.parametrize(("target", "gpus"), [("cpu", None), ("cuda", 1), ("tensorrt-llm", 1)])
def test_a_pod_has_the_gpu_that_its_target_needs(target: str, gpus: int | None) -> None:
    (pod, *_) = pod_templates(render(change("target", target)))
    assert pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") == gpus


@pytest.mark.parametrize("is_open", [False, True])
def test_nobody_may_connect_unless_the_values_name_callers(*, is_open: bool) -> None:
    values = load_values(BASE)
    if not is_open:
        del values["networkPolicy"]
    policy = find(render(values), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    rules = policy["ingress"] or []
    assert [rule["from"] for rule in rules] == (
        [load_values(BASE)["networkPolicy"]["callers"]] * is_open
    )


def test_the_alerts_are_those_of_deploy_prometheus() -> None:
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))
    objects = render(load_values("everything"))
    assert find(objects, "PrometheusRule")["spec"] == rules
    # `up{job="adprior"}`: the job is the value of that label of the Services.
    monitor = find(objects, "ServiceMonitor")["spec"]
    services = [each for each in objects if each["kind"] == "Service"]
    assert {each["metadata"]["labels"][monitor["jobLabel"]] for each in services} == {"adprior"}
    ports = [port["name"] for each in services for port in each["spec"]["ports"]]
    assert ports.count("metrics") == 1  # one Service, so that each pod is read once


@pytest.mark.parametrize(
    ("target", "metric", "labels"),
    [
        ("cpu", "nv_inference_pending_request_count", {"model": "llm_engine"}),
        ("cuda", "nv_inference_pending_request_count", {"model": "llm_engine"}),
        (
            "tensorrt-llm",
            "nv_trt_llm_request_metrics",
            {"model": "llm_engine", "request_type": "waiting"},
        ),
    ],
)
def test_both_autoscalers_follow_the_requests_that_wait(
    target: str, metric: str, labels: dict[str, str]
) -> None:
    (hpa,) = find(render(load_values("cpu-hpa") | {"target": target}), "HorizontalPodAutoscaler")[
        "spec"
    ]["metrics"]
    assert hpa["pods"]["metric"] == {"name": metric, "selector": {"matchLabels": labels}}
    objects = render(load_values("cpu-keda") | {"target": target})
    (trigger,) = find(objects, "ScaledObject")["spec"]["triggers"]
    pods = {"namespace": "serving", "service": f"{RELEASE}-pods"}
    matchers = ",".join(f'{name}="{value}"' for name, value in (pods | labels).items())
    assert trigger["metadata"]["query"] == f"sum({metric}{{{matchers}}})"
    assert "replicas" not in find(objects, "Deployment")["spec"]
    dashboard = (ROOT / "deploy" / "grafana" / "adprior.json").read_text(encoding="utf-8")
    assert metric in dashboard


def test_a_pod_pulls_its_repository_and_reaches_the_store_only() -> None:
    values = load_values("cpu-url")
    objects = render(values)
    (pod,) = pod_templates(objects)
    (init,) = pod["initContainers"]
    name, *options = init["args"]
    parser = argparse.ArgumentParser()
    {"pull": pull}[name].add_arguments(parser)
    parsed = parser.parse_args(options)
    assert (parsed.url, parsed.version) == ("s3://models/adprior", "3fa9c2e01b7d")
    (served,) = [
        each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "repository"
    ]
    (pulled,) = [each for each in init["volumeMounts"] if each["name"] == "repository"]
    assert f"{pulled['mountPath']}/{served['subPath']}" == str(parsed.directory)
    assert served["readOnly"]
    assert init["securityContext"] == pod["containers"][0]["securityContext"]
    assert pod["serviceAccountName"] == values["repository"]["serviceAccount"]
    egress = find(objects, "NetworkPolicy")["spec"]["egress"]
    assert [rule["to"] for rule in egress if "to" in rule] == [values["networkPolicy"]["stores"]]
    assert [port["port"] for rule in egress for port in rule.get("ports", [])] == [53, 53]
    del values["networkPolicy"]["stores"]
    with pytest.raises(helm.HelmError, match=r"repository\.url needs networkPolicy\.stores"):
        render(values)


def test_a_service_account_without_a_url_is_refused() -> None:
    with pytest.raises(helm.HelmError, match=r"serviceAccount goes with repository\.url"):
        render(change("repository.serviceAccount", "reader"))


def test_the_bulk_job_may_call_the_servers() -> None:
    objects = render(load_values("everything"))
    job = find(objects, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]
    callers = find(objects, "NetworkPolicy")["spec"]["ingress"][0]["from"]
    wanted = callers[-1]["podSelector"]["matchLabels"]
    assert wanted.items() <= job["metadata"]["labels"].items()
    served = find(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    assert not served.items() <= job["metadata"]["labels"].items()
    urls = [each for each in job["spec"]["containers"][0]["args"] if each.startswith("--url")]
    assert urls == [f"--url=dns:///{RELEASE}-pods:8001"]


def test_the_longest_name_of_a_release_leaves_room_for_the_bulk_job() -> None:
    with helm.Chart.load(CHART) as chart:
        files = chart.render(load_values("bulk"), name="a" * 53)
    (job,) = [yaml.safe_load(text) for name, text in files.items() if name.endswith("bulk.yaml")]
    assert len(job["metadata"]["name"]) == 52


@pytest.mark.parametrize(
    ("probe", "path"), [("startup", "ready"), ("readiness", "ready"), ("liveness", "live")]
)
@pytest.mark.parametrize(("status", "is_healthy"), [(200, True), (400, False)])
def test_a_probe_asks_for_health_on_loopback(
    probe: str, path: str, status: int, *, is_healthy: bool
) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == f"/v2/health/{path}" else 404)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    (pod, *_) = pod_templates(render(load_values("everything")))
    program, flag, code = pod["containers"][0][f"{probe}Probe"]["exec"]["command"]
    assert (program, flag) == ("python3", "-c")
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    check = compose["services"]["serve"]["healthcheck"]["test"][-1]
    assert code == check.replace("/health/ready", f"/health/{path}")
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        done = run(sys.executable, flag, code.replace("8000", str(server.server_port)))
    assert (done.returncode == 0) == is_healthy, done.stderr


def test_the_page_names_every_example() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|examples/)([a-z-]+)\.yaml", page)) - {"values"}
    assert named == set(EXAMPLES)
