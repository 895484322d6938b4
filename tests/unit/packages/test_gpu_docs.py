"""docs/gpu.md: figures as the command prints them, a source or "not run here" for each claim."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from adprior_build.commands import build
from adprior_client.commands import predict
from adprior_runtime.commands import serve
from adprior_runtime.engines.registry import GPU_IMAGE, TENSORRT_LLM_VERSION
from support.gpu_golden import format_concurrency, format_sizing
from support.paths import ROOT

DOCS = ROOT / "docs"
PAGE = (DOCS / "gpu.md").read_text(encoding="utf-8")
PAGES = [*sorted(DOCS.glob("*.md")), *sorted(ROOT.glob("*.md"))]
SOURCE = re.compile(r"\[([SIBW]\d+)\]")
NOT_RUN = "not run here|not verified|untried|no TensorRT-LLM has run"
BACKED = re.compile(rf"{SOURCE.pattern}|#\d{{3,}}|@ [0-9a-f]{{8}}|{NOT_RUN}", re.IGNORECASE)
COMMANDS: dict[str, Any] = {"build": build, "serve": serve, "predict": predict}
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
CHECKLIST = re.findall(
    r"^(\d+)\. (.*)$", PAGE.split("## Ten lines")[1].split("\n## ")[0], re.MULTILINE
)


def _unbacked(text: str) -> list[str]:
    """Return each claim on TensorRT-LLM without a source, outside code blocks and headings."""
    return [
        claim for claim in _claims(text) if "TensorRT-LLM" in claim and not BACKED.search(claim)
    ]


def _claims(text: str) -> Iterator[str]:
    """Yield each sentence and table row."""
    for block in re.split(r"\n\s*\n", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if block.startswith("#"):
            continue
        for part in re.split(r"\n(?=\||- |\d+\. )", block):
            if part.startswith("|"):
                yield part
            else:
                yield from re.split(r"(?<=[.!?:;])\*{0,2}\s+(?=[A-Z`*])", " ".join(part.split()))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_claim_on_tensorrt_llm_has_a_source_or_says_not_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert _unbacked(text) == []
    assert "project's notes" not in text  # a source that no reader can see


def test_a_bare_claim_is_found() -> None:
    text = "# TensorRT-LLM\n\n- TensorRT-LLM is fast\n- TensorRT-LLM is not run here\n\n"
    text += "TensorRT-LLM is small. TensorRT-LLM is\nblue [S1]. Elsewhere #12345.\n"
    assert _unbacked(text) == ["- TensorRT-LLM is fast", "TensorRT-LLM is small."]


def test_every_source_is_listed_and_used() -> None:
    listed = re.findall(r"^\| ([SIBW]\d+) \|", PAGE, re.MULTILINE)
    assert set(SOURCE.findall(PAGE)) == set(listed)


@pytest.mark.parametrize(
    ("name", "text"), [("sizing", format_sizing()), ("rooms", format_concurrency())]
)
def test_the_sizing_equals_the_commands_output(name: str, text: str) -> None:
    assert re.findall(rf"<!-- {name}: .*?-->\n(.*?)<!-- end -->", PAGE, re.DOTALL) == [text]


def test_the_checklist_has_ten_lines_with_what_to_expect() -> None:
    assert [number for number, _ in CHECKLIST] == [str(number) for number in range(1, 11)]
    assert all(" → " in line for _, line in CHECKLIST)
    assert "nothing found wrong`" in CHECKLIST[5][1]
    assert "`Not certified: " in CHECKLIST[7][1]


def test_the_checklists_commands_parse() -> None:
    """The first eight lines begin with a command; adprior's parsers accept those of adprior."""
    parsed = []
    for _, line in CHECKLIST[:8]:
        command = re.match(r"`([^`]+)` → ", line)
        assert command is not None, line
        _, _, options = command[1].rpartition("compose.yaml run --rm ")
        words = shlex.split(options or command[1])
        while words and words[0] not in COMMANDS and "compose.yaml" in command[1]:
            words = words[1:]  # skip docker's options
        if words[:1] == ["adprior"]:
            words = words[1:]
        elif words and words[0] in COMMANDS:
            words = words[1:] or COMPOSE["services"][words[0]]["command"]
        else:
            continue
        name, *arguments = words
        parser = argparse.ArgumentParser(exit_on_error=False)
        COMMANDS[name].add_arguments(parser)
        parsed.append((name, parser.parse_args(arguments)))
    assert [name for name, _ in parsed] == ["build", "build", "serve", "predict"]
    assert parsed[0][1].save_bundle == Path("/output/bundle")
    assert parsed[2][1].log_file == Path("/tmp/server.log")


def test_the_page_names_the_pinned_versions_and_the_demo() -> None:
    for text in (
        GPU_IMAGE,
        f"TensorRT-LLM {TENSORRT_LLM_VERSION}",
        "demo/make_bundle.sh",
        "demo-l4.toml",
    ):
        assert text in PAGE


def test_the_command_has_every_option_of_the_page() -> None:
    parser = argparse.ArgumentParser()
    build.add_arguments(parser)
    known = {option for action in parser._actions for option in action.option_strings}
    commands = re.findall(r"adprior build ([^`\n]*)", PAGE)
    used = {option for command in commands for option in re.findall(r"--[a-z-]+", command)}
    assert used
    assert used <= known


def test_the_page_says_that_tritons_queue_does_not_bound_the_engine() -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| Every refusal of the back")]
    assert "its 5 s does not run while they wait in the engine" in row
    assert "INTERNAL is not retried" in row
