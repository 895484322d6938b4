"""Dashboard, alerts, runbook and systemd unit agree with each other and with the code."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from string import Template

import pytest
import yaml

from adprior_runtime.commands.serve import add_arguments
from adprior_runtime.triton.metrics import METRICS
from support.monitoring import (
    PAGE,
    PANELS,
    PROMETHEUS,
    RULES,
    expressions,
    find_tool,
    series_names,
)
from support.paths import ROOT
from support.processes import run

UNIT = ROOT / "deploy" / "systemd" / "adprior@.service"
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
NAME = re.compile(r"\b(?:adprior(?:_\w+|:[\w:]+)|nv_\w+)")
OUR_NAMES = {name for metric in METRICS for name in series_names(metric)}
ALERT_TESTS = ("alerts", "alerts_week")


def _own_names(text: str) -> set[str]:
    return {name for name in NAME.findall(text) if name.startswith("adprior")}


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_the_dashboard_shows_every_metric_and_no_unknown_one() -> None:
    shown = {name for text in expressions() for name in _own_names(text)}
    assert [metric.name for metric in METRICS if not shown & set(series_names(metric))] == []
    assert shown <= OUR_NAMES | RECORDED


def test_rules_use_known_metrics() -> None:
    assert {name for rule in RULES for name in _own_names(rule["expr"])} <= OUR_NAMES | RECORDED


@pytest.mark.parametrize(("extra", "code"), [([], 0), (["sum(rate(adprior_beams_total[1m])"], 1)])
def test_prometheus_parses_every_expression_of_the_dashboard(
    tmp_path: Path, extra: list[str], code: int
) -> None:
    texts = [*expressions(), *extra]
    rules = [{"record": f"panel:{i}", "expr": text} for i, text in enumerate(texts)]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = run(find_tool("promtool"), "check", "rules", str(path))
    assert done.returncode == code, done.stderr


def test_prometheus_accepts_the_configuration_and_the_rules() -> None:
    done = run(find_tool("promtool"), "check", "config", str(PROMETHEUS / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(RULES)} rules found" in done.stdout


@pytest.mark.parametrize("name", ALERT_TESTS)
def test_the_alerts_pass_promtools_tests(name: str) -> None:
    done = run(find_tool("promtool"), "test", "rules", str(PROMETHEUS / f"{name}.test.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("fires", [True, False])
def test_promtools_tests_cover_every_alert_firing_and_silent(*, fires: bool) -> None:
    files = [yaml.safe_load((PROMETHEUS / f"{name}.test.yml").read_text()) for name in ALERT_TESTS]
    cases = [case for file in files for test in file["tests"] for case in test["alert_rule_test"]]
    tested = {case["alertname"] for case in cases if bool(case["exp_alerts"]) == fires}
    assert tested == set(ALERTS)


def test_every_alert_has_an_entry_in_the_runbook() -> None:
    assert re.findall(r"^### (Adprior\w+)\n\n.+", PAGE, re.MULTILINE) == list(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
        assert rule["labels"]["severity"] in {"page", "ticket"}


def test_the_page_lists_every_metric_and_no_unknown_one() -> None:
    rows = re.findall(r"^\| (`adprior_.+?) \|", PAGE, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert listed == {metric.name for metric in METRICS}
    assert _own_names(PAGE) - {"adprior_client"} <= listed | OUR_NAMES  # a logger has that name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_links_of_a_page_have_targets(page: Path) -> None:
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        linked = page.parent / target if target else page
        assert linked.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in anchors, (target, heading)


@pytest.mark.parametrize("colour", ["blue", "green"])
def test_systemd_accepts_the_unit(tmp_path: Path, colour: str) -> None:
    analyze = find_tool("systemd-analyze")
    text = UNIT.read_text(encoding="utf-8").replace("/opt/adprior/bin/adprior", find_tool("true"))
    (tmp_path / UNIT.name).write_text(text)
    done = run(analyze, "verify", str(tmp_path / f"adprior@{colour}.service"))
    assert (done.returncode, done.stderr) == (0, "")


def test_adprior_accepts_the_units_command() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    (line,) = re.findall(r"^ExecStart=\S+ serve (.+)$", UNIT.read_text(), re.MULTILINE)
    ports = set()
    for colour in ("blue", "green"):
        lines = UNIT.with_name(f"{colour}.env").read_text().splitlines()
        filled = Template(line.replace("%i", colour)).substitute(
            dict(each.split("=", 1) for each in lines)
        )
        args = parser.parse_args(filled.split())
        assert args.repository == Path(f"/srv/adprior/{colour}")
        ports |= {args.grpc_port, args.http_port, args.metrics_port}
    assert len(ports) == 6
