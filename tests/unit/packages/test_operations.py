"""What operators are given: dashboard, alerts, runbook and unit agree with each other."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml

from adprior_runtime.triton.metrics import METRICS, series_names

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
UNIT = ROOT / "deploy" / "systemd" / "adprior@.service"
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
GROUPS = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
DASHBOARD: dict[str, Any] = json.loads(
    (ROOT / "deploy" / "grafana" / "adprior.json").read_text(encoding="utf-8")
)
NAME = re.compile(r"\b(?:adprior(?:_\w+|:[\w:]+)|nv_\w+)")
OURS = {name for metric in METRICS for name in series_names(metric)}


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here: make system-packages")
    return found


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, check=False, text=True, timeout=60)


def expressions() -> Iterator[str]:
    """Every PromQL expression of the dashboard, its variables filled in as Grafana does."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            text = target["expr"].replace("$__rate_interval", "1m")
            yield text.replace("$job", "adprior").replace("$instance", ".*")


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_dashboard_shows_every_metric_of_ours() -> None:
    shown = {name for text in expressions() for name in NAME.findall(text)}
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    for metric in METRICS:
        assert shown & set(series_names(metric)), metric.name
    assert {name for name in shown if name.startswith("adprior")} <= OURS | recorded


def test_prometheus_parses_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    promtool = tool("promtool")
    rules = [{"record": f"panel:{i}", "expr": text} for i, text in enumerate(expressions())]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = run(promtool, "check", "rules", str(path))
    assert done.returncode == 0, done.stderr
    rules.append({"record": "panel:broken", "expr": "sum(rate(adprior_beams_total[1m])"})
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert run(promtool, "check", "rules", str(path)).returncode == 1


def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    promtool = tool("promtool")
    done = run(promtool, "check", "config", str(PROMETHEUS / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(RULES)} rules found" in done.stdout


@pytest.mark.parametrize("name", ["alerts", "alerts_week"])
def test_every_alert_fires_and_keeps_silent_as_it_should(name: str) -> None:
    done = run(tool("promtool"), "test", "rules", str(PROMETHEUS / f"{name}.test.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = [
        case
        for name in ("alerts", "alerts_week")
        for test in yaml.safe_load((PROMETHEUS / f"{name}.test.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    for fires in (True, False):
        assert {case["alertname"] for case in cases if bool(case["exp_alerts"]) == fires} == set(
            ALERTS
        )


def test_every_alert_has_its_line_in_the_runbook() -> None:
    headings = re.findall(r"^### (Adprior\w+)\n\n(.+)", PAGE, re.MULTILINE)
    assert [name for name, _ in headings] == list(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
        assert rule["labels"]["severity"] in {"page", "ticket"}


def test_rules_ask_for_metrics_of_ours_by_their_names() -> None:
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    for rule in RULES:
        names = {name for name in NAME.findall(rule["expr"]) if name.startswith("adprior")}
        assert names <= OURS | recorded, rule


def test_the_page_tells_of_every_metric_and_of_no_other() -> None:
    rows = re.findall(r"^\| (`adprior_.+?) \|", PAGE, re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert told == {metric.name for metric in METRICS}
    mentioned = {name for name in NAME.findall(PAGE) if name.startswith("adprior_")}
    packages = {"adprior_client"}  # a logger
    assert mentioned - packages <= told | OURS


def test_the_pages_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", PAGE):
        # Written beside this page.
        if target != "serving_benchmarks.md":
            assert (ROOT / "docs" / target).exists(), target


@pytest.mark.parametrize("colour", ["blue", "green"])
def test_systemd_takes_the_unit(tmp_path: Path, colour: str) -> None:
    analyze = tool("systemd-analyze")
    text = UNIT.read_text(encoding="utf-8").replace("/opt/adprior/bin/adprior", tool("true"))
    (tmp_path / UNIT.name).write_text(text)
    done = run(analyze, "verify", str(tmp_path / f"adprior@{colour}.service"))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_units_command_is_one_that_adprior_takes() -> None:
    from adprior_runtime.commands.serve import add_arguments  # noqa: PLC0415

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    (line,) = re.findall(r"^ExecStart=\S+ serve (.+)$", UNIT.read_text(), re.MULTILINE)
    ports = set()
    for colour in ("blue", "green"):
        settings = dict(
            line.split("=", 1) for line in UNIT.with_name(f"{colour}.env").read_text().splitlines()
        )
        filled = Template(line.replace("%i", colour)).substitute(settings)
        args = parser.parse_args(filled.split())
        assert args.repository == Path(f"/srv/adprior/{colour}")
        ports |= {args.grpc_port, args.http_port, args.metrics_port}
    assert len(ports) == 6
