"""docs/gpu.md: its figures are the command's, its claims carry a source or say "not run here"."""

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
from adprior_runtime.engines.gpu_faults import IMAGE, TENSORRT_LLM_VERSION
from support.gpu_golden import rooms, sizing

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "gpu.md").read_text(encoding="utf-8")
SOURCE = re.compile(r"\[(?P<name>[SIBW]\d+)\]")
UNTRIED = "not run here|not verified|untried|no TensorRT-LLM has run"
BACKED = re.compile(rf"{SOURCE.pattern}|#\d{{3,}}|@ [0-9a-f]{{8}}|{UNTRIED}", re.IGNORECASE)
PAGES = [*sorted(DOCS.glob("*.md")), *sorted(DOCS.parent.glob("*.md"))]


COMMANDS: dict[str, Any] = {"build": build, "serve": serve, "predict": predict}
COMPOSE = yaml.safe_load((DOCS.parent / "deploy" / "compose.yaml").read_text(encoding="utf-8"))


def claims(text: str) -> Iterator[str]:
    """Yield each sentence and table row of a page, without code blocks and headings."""
    for block in re.split(r"\n\s*\n", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if block.startswith("#"):
            continue
        for part in re.split(r"\n(?=\||- |\d+\. )", block):
            if part.startswith("|"):
                yield part
            else:
                yield from re.split(r"(?<=[.!?:;])\*{0,2}\s+(?=[A-Z`*])", " ".join(part.split()))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_claim_on_tensorrt_llm_has_a_source_or_says_that_it_was_not_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    bare = [claim for claim in claims(text) if "TensorRT-LLM" in claim and not BACKED.search(claim)]
    assert bare == []


def test_a_bare_claim_is_found() -> None:
    text = "# TensorRT-LLM\n\n- TensorRT-LLM is fast\n- TensorRT-LLM is not run here\n\n"
    text += "TensorRT-LLM is small. TensorRT-LLM is\nblue [S1]. Elsewhere #12345.\n"
    bare = [claim for claim in claims(text) if not BACKED.search(claim)]
    assert bare == ["- TensorRT-LLM is fast", "TensorRT-LLM is small."]


def test_nothing_is_backed_by_notes_that_a_reader_cannot_see() -> None:
    for path in PAGES:
        assert "project's notes" not in path.read_text(encoding="utf-8")


def test_every_source_is_listed_and_used() -> None:
    listed = set(re.findall(r"^\| ([SIBW]\d+) \|", PAGE, re.MULTILINE))
    used = {match["name"] for match in SOURCE.finditer(PAGE)}
    assert used == listed


def test_the_sizing_is_what_the_command_prints() -> None:
    for name, text in (("sizing", sizing()), ("rooms", rooms())):
        found = re.search(rf"<!-- {name}: .*?-->\n(.*?)<!-- end -->", PAGE, re.DOTALL)
        assert found is not None
        assert found[1] == text


def test_the_checklist_has_ten_lines_with_what_to_expect() -> None:
    section = PAGE.split("## Ten lines")[1].split("\n## ")[0]
    lines = re.findall(r"^(\d+)\. .*$", section, re.MULTILINE)
    assert lines == [str(number) for number in range(1, 11)]
    assert all(" → " in line for line in re.findall(r"^\d+\. .*$", section, re.MULTILINE))


def _checklist() -> list[str]:
    section = PAGE.split("## Ten lines")[1].split("\n## ")[0]
    return re.findall(r"^\d+\. (.*)$", section, re.MULTILINE)


def test_the_lines_that_are_commands_are_ones_that_run() -> None:
    """Each of the first eight begins with a command; those of adprior are given to its parsers."""
    parsed = []
    for line in _checklist()[:8]:
        command = re.match(r"`([^`]+)` → ", line)
        assert command is not None, line
        _, _, options = command[1].rpartition("compose.yaml run --rm ")
        words = shlex.split(options or command[1])
        while words and words[0] not in COMMANDS and "compose.yaml" in command[1]:
            words = words[1:]  # options of docker's, then the service
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


def test_the_checklist_says_what_the_commands_print() -> None:
    lines = _checklist()
    assert "nothing found wrong`" in lines[5]
    assert "`Not certified: " in lines[7]
    assert "EXACT" not in lines[7]
    assert ".demo-bundle/checkpoint" in PAGE
    assert "demo-l4.toml" in PAGE


def test_the_pins_are_the_codes() -> None:
    assert IMAGE in PAGE
    assert f"TensorRT-LLM {TENSORRT_LLM_VERSION}" in PAGE


def test_every_option_of_the_page_is_one_of_the_command() -> None:
    parser = argparse.ArgumentParser()
    build.add_arguments(parser)
    known = {option for action in parser._actions for option in action.option_strings}
    lines = [
        # --check is another command's part of `adprior build`.
        line
        for line in PAGE.splitlines()
        if "adprior build" in line and "--check " not in line
    ]
    used = {
        option
        for line in lines
        for command in re.findall(r"adprior build ([^`]*)", line)
        for option in re.findall(r"--[a-z-]+", command)
    }
    assert used
    assert used <= known


def test_no_page_promises_that_tritons_queue_bounds_the_engine() -> None:
    """TensorRT-LLM's backend takes requests as they come: Triton's 5 s does not run there."""
    assert "queues are bounded and time out" not in PAGE
    assert "UNAVAILABLE, which clients retry; INTERNAL" not in PAGE
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| Every refusal of the back")]
    assert "its 5 s does not run while they wait in the engine" in row
    assert "INTERNAL is not retried" in row
