"""The README's first screen, run on the tiny bundle: its answers have the form that it shows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.prompt.context import parse_context
from support.paths import DEMO, ROOT
from support.servers import Served


@pytest.mark.triton
def test_the_readmes_example_answers_as_the_readme_says(
    tiny_bundle: Path, tiny_served: Served
) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```\s+```\n(.*?)```", text, re.DOTALL)
    assert found
    code, answer = found.groups()
    printed = subprocess.run(
        [sys.executable, "-c", code.replace("localhost:8001", tiny_served.server.grpc_address)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    ).stdout
    (forecast, logits), (shown, shown_logits) = map(_parse, (printed, answer))
    assert [*map(len, (forecast, logits))] == [*map(len, (shown, shown_logits))]
    forecaster = Forecaster(tiny_bundle, threads=1)
    best = forecaster.forecast(parse_context((DEMO / "users" / "dog_owner.json").read_bytes()))
    rows = forecaster.advertisers.rows_of(best.advertiser_ids[: len(forecast)])
    assert [name for name, _ in forecast] == [
        forecaster.advertisers.name(int(row)).decode() for row in rows
    ]
    expected = np.exp(best.log_probs[: len(forecast)])
    np.testing.assert_allclose([p for _, p in forecast], expected, atol=1e-3)


def _parse(output: str) -> list[Any]:
    return [ast.literal_eval(line) for line in output.splitlines()]
