from __future__ import annotations

import ast
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import adprior_runtime
from adprior_runtime.text.json_text import to_json

ROOT = Path(adprior_runtime.__file__).parents[2]
PACKAGES = ("runtime", "build", "clients", "bulk", "benchmarks", "explore")
IN_OTHER_PYTHONS = {
    Path("benchmarks/adprior_bench/search/peers") / name for name in ("worker.py", "genai_beams.py")
}
"""They run where adprior is not installed."""
CHECKED = Path("clients/adprior_client/user_context.py")
"""Refuses what is no number, by name: a user's context must not change on its way."""

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def _refuse(constant: str) -> None:
    raise AssertionError(constant)


def _nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nulls(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@given(documents)
def test_numbers_that_are_not_finite_become_null(document: Any) -> None:
    assert json.loads(to_json(document), parse_constant=_refuse) == _nulls(document)


def test_options_of_json_dumps_are_passed_on() -> None:
    assert to_json({"é": [math.inf]}, ensure_ascii=False, indent=1) == '{\n "é": [\n  null\n ]\n}'
    assert to_json((1.5, {"a": -math.inf})) == '[1.5, {"a": null}]'


@pytest.mark.parametrize("package", PACKAGES)
def test_all_json_is_written_in_one_place(package: str) -> None:
    found = []
    for path in (ROOT / package).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            is_dump = isinstance(node, ast.Attribute) and node.attr in {"dump", "dumps"}
            if is_dump and ast.unparse(node).startswith("json."):
                found.append(path.relative_to(ROOT))
    allowed = {CHECKED, Path("runtime/adprior_runtime/text/json_text.py"), *IN_OTHER_PYTHONS}
    assert set(found) <= allowed
