"""Bounds of queues, made small enough to be met: who would wait too long is refused at once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tritonclient.utils import InferenceServerException

from adprior_runtime import contract
from adprior_runtime.cli import main
from integration.conftest import start_server
from integration.test_forecast import infer_context

pytestmark = pytest.mark.triton

DEMO = Path(__file__).parents[2] / "demo"
ENGINE = Path(contract.LLM_ENGINE) / "configs" / f"{contract.CPU_CONFIG_NAME}.pbtxt"


@pytest.mark.parametrize(
    ("bound", "smaller", "told"),
    [
        (f"max_queue_size: {contract.MAX_QUEUE_SIZE}", "max_queue_size: 1", "maximum queue size"),
        (
            f"default_timeout_microseconds: {contract.QUEUE_TIMEOUT_US}",
            "default_timeout_microseconds: 1000",
            "timeout expired",
        ),
    ],
)
def test_a_request_that_would_wait_too_long_is_refused(
    tmp_path: Path, bound: str, smaller: str, told: str
) -> None:
    repository = tmp_path / "repository"
    assert main(["build", "--bundle", str(DEMO / "bundle"), "--output", str(repository)]) == 0
    text = (repository / ENGINE).read_text()
    assert bound in text
    (repository / ENGINE).write_text(text.replace(bound, smaller))
    context = json.dumps(json.loads((DEMO / "users" / "dog_owner.json").read_text())).encode()

    with start_server(repository) as server:

        def ask(_: int) -> str:
            try:
                infer_context(server, context)
            except InferenceServerException as error:
                return f"{error.status()} {error.message().lower()}"
            return "answered"

        with ThreadPoolExecutor(32) as pool:
            outcomes = list(pool.map(ask, range(128)))
    refused = [outcome for outcome in outcomes if outcome != "answered"]
    assert 0 < len(refused) < len(outcomes)
    for outcome in refused:
        assert outcome.startswith("StatusCode.UNAVAILABLE")
        assert told in outcome
