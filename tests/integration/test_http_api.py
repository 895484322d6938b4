"""docs/http_api.md: its tables equal the code, its examples run on a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adprior_runtime import contract
from adprior_runtime.contract import Target
from adprior_runtime.repository.model_specs import Tensor, model
from support.monitoring import find_tool
from support.paths import ROOT
from support.processes import run
from support.servers import Served

PAGE = (ROOT / "docs" / "http_api.md").read_text(encoding="utf-8")
MODELS = (contract.ADVERTISER_RETRIEVAL, contract.ADVERTISER_RANKING, contract.PRIOR_HEAD)
PAIRS: list[tuple[str, str]] = re.findall(
    r"```bash\n((?:(?!```).)*)```\n\n```json\n(.*?)```", PAGE, re.DOTALL
)
(HEALTH,) = re.findall(r"```bash\n(curl [^\n]*/ready[^\n]*)\n```", PAGE)
(PROTOSET,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
((NODE, NODE_OUTPUT),) = re.findall(r"```javascript\n(.*?)```\n\n```\n(.*?)```", PAGE, re.DOTALL)
NODE_MODULES = ROOT / ".node" / "node_modules"


def _expected_rows() -> list[tuple[str, ...]]:
    """Return name, type, shape and the use in each model, as the table has them."""
    tensors: dict[str, Tensor] = {}
    uses: dict[str, dict[str, list[str]]] = {}
    for name in MODELS:
        spec = model(name, Target.CPU)
        inputs = [(each, "in, optional" if each.optional else "in") for each in spec.inputs]
        for tensor, use in [*inputs, *((each, "out") for each in spec.outputs)]:
            tensors.setdefault(tensor.name, tensor)
            assert (tensor.dtype, tensor.dims) == (
                tensors[tensor.name].dtype,
                tensors[tensor.name].dims,
            )
            uses.setdefault(tensor.name, {}).setdefault(name, []).append(use)
    return [
        (
            f"`{tensor.name}`",
            tensor.dtype,
            f"`[1, {', '.join('n' if size < 0 else str(size) for size in tensor.dims)}]`",
            *("; ".join(uses[tensor.name].get(name, [])) for name in MODELS),
        )
        for tensor in tensors.values()
    ]


def test_the_table_of_tensors_equals_the_code() -> None:
    section = PAGE.partition("## Tensors")[2].partition("\n## ")[0]
    head, _, *lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    assert [row[:-1] for row in rows] == _expected_rows()
    assert all(row[-1] for row in rows)
    assert re.findall(r"`(\w+)`", head) == [*MODELS]


def test_the_page_names_the_limits_and_keys_of_the_code() -> None:
    for value in (
        f"{contract.MAX_CANDIDATES:,}",
        f"{contract.MAX_EXCLUDED:,}",
        f"{contract.MAX_CONTEXT_BYTES // 1024} KiB",
        f"`{contract.INFERENCE_KEY}`",
        f"`{contract.GRPC_KEY_PREFIX}{contract.INFERENCE_KEY}`",
    ):
        assert value in PAGE


def _curl(script: str, served: Served) -> str:
    find_tool("curl")
    script = script.replace("localhost:8000", served.server.http_address)
    done = run("bash", "-eu", "-o", "pipefail", "-c", script, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _form(answer: Any) -> Any:
    """Return what an answer looks like: its tensors by name, without their values."""
    if isinstance(answer, list):
        return [type(value) for value in answer]
    if "error" in answer:
        return answer
    return {
        output["name"]: (
            output["datatype"],
            output["shape"],
            {type(value) for value in output["data"]},
        )
        for output in answer["outputs"]
    }


@pytest.mark.triton
def test_the_server_is_ready(tiny_served: Served) -> None:
    assert _curl(HEALTH, tiny_served).strip() == "ready"


@pytest.mark.triton
@pytest.mark.parametrize(("script", "shown"), PAIRS, ids=range(len(PAIRS)))
def test_an_example_answers_in_the_form_that_the_page_shows(
    tiny_served: Served, script: str, shown: str
) -> None:
    if "jq " in script:
        find_tool("jq")
    assert _form(json.loads(_curl(script, tiny_served))) == _form(json.loads(shown))


@pytest.mark.triton
def test_a_request_ends_at_its_timeout(tiny_served: Served) -> None:
    context = {"name": contract.USER_CONTEXT, "datatype": "BYTES", "shape": [1, 1]}
    for timeout_us, expected in ((1, {"400", "503"}), (60_000_000, {"200"})):
        body = {
            "parameters": {"timeout": timeout_us, "priority": 1},
            "inputs": [context | {"data": ['{"as_of": "2022-07-01"}']}],
        }
        path = f"http://localhost:8000/v2/models/{contract.ADVERTISER_RETRIEVAL}/infer"
        code = "--output /dev/null --write-out '%{http_code}'"
        assert _curl(f"curl --silent {code} {path} --data '{json.dumps(body)}'", tiny_served) in (
            expected
        )


@pytest.mark.triton
def test_the_listed_paths_exist(tiny_served: Served) -> None:
    paths = re.findall(r"`GET (/v2[^`]*)`", PAGE)
    assert len(paths) == 7
    for path in paths:
        place = path.replace("MODEL", contract.PRIOR_HEAD)
        _curl(f"curl --silent --fail http://localhost:8000{place}", tiny_served)


@pytest.mark.triton
def test_node_asks_over_grpc(tiny_served: Served, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or not (NODE_MODULES / "@grpc" / "proto-loader").is_dir():
        pytest.skip("Node.js or its gRPC packages are not here: make node-packages")
    subprocess.run([sys.executable, "-c", PROTOSET], check=True, cwd=tmp_path, timeout=60)
    (tmp_path / "forecast.js").write_text(NODE, encoding="utf-8")
    environment = os.environ | {"NODE_PATH": str(NODE_MODULES)}

    def ask(url: str) -> subprocess.CompletedProcess[str]:
        variables = environment | {"URL": url}
        return run(node, "forecast.js", cwd=tmp_path, env=variables, timeout=60)

    done = ask(tiny_served.server.grpc_address)
    assert done.returncode == 0, done.stderr
    forecast = tiny_served.retrieval.forecast(
        {
            "as_of": "2022-07-01",
            "profile": {"age": "35 - 44 years"},
            "history": [
                {
                    "time": "2022-06-11",
                    "action": "purchase",
                    "advertiser": "Purina",
                    "category": "PET_FOOD",
                }
            ],
        },
        k=3,
    )
    assert done.stdout.splitlines() == [
        f"{item.advertiser_id} {item.name} {item.probability:.4f}" for item in forecast.advertisers
    ]
    assert len(NODE_OUTPUT.splitlines()) == 3
    refused = ask("127.0.0.1:1")
    assert refused.returncode == 1
    assert refused.stderr.startswith("no forecast: 14 ")
