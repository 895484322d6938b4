"""Interests: a second catalogue, served from the same prompt on a real tritonserver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from adprior_runtime import contract
from adprior_runtime.forecast.forecaster import Forecaster
from adprior_runtime.server.tritonserver import TritonServer
from integration.output_subsets import ENSEMBLES, assert_subsets_are_answered, output_subsets
from support.data_set import IDS, user
from support.interests import INTERESTS, add_interests
from support.raw_requests import context_tensor, infer
from support.servers import Served, serve, start_server

pytestmark = pytest.mark.triton

_NAMES = (contract.INTEREST_IDS, contract.INTEREST_LOG_PROBS, contract.INTEREST_NAMES)


@pytest.fixture(scope="module")
def interested(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained bundle with interests, of which the model has learnt nothing."""
    return add_interests(bundle, tmp_path_factory.mktemp("interested"))


@pytest.fixture(scope="module")
def interest_server(interested: Path) -> Iterator[Served]:
    with serve(start_server(interested.with_name("repository"))) as running:
        yield running


def _ask(address: str, ensemble: str, events: int, **further: Any) -> dict[str, Any]:
    """Return the forecast and the interests of an answer."""
    tensors = {
        contract.USER_CONTEXT: context_tensor(user(events)),
        contract.CANDIDATE_ADVERTISER_IDS: [*IDS.values()],
        contract.BASE_LOGITS: np.linspace(-3, 1, len(IDS)),
    }
    answer = infer(address, ensemble, tensors | further)
    names = (contract.ADVERTISER_IDS, contract.LOG_PROBS, contract.EXACT, *_NAMES)
    return {name: answer.as_numpy(name)[0].tolist() for name in names}


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_served_interests_equal_those_in_process(
    interest_server: Served, interested: Path, ensemble: str
) -> None:
    forecaster = Forecaster(interested)
    address = interest_server.server.grpc_address
    for events in (0, 5, 30):
        answer = _ask(address, ensemble, events, INTEREST_TOP_K=[3])
        prompt = forecaster.prompt_ids(json.dumps(user(events)).encode())
        forecast, local = forecaster.forecast_interests(prompt, None, 3)
        assert answer[contract.INTEREST_IDS] == local.ids.tolist()
        assert answer[contract.INTEREST_NAMES] == local.names
        assert [INTERESTS[key - 7].encode() for key in local.ids] == local.names
        assert np.allclose(answer[contract.INTEREST_LOG_PROBS], local.log_probs, atol=1e-4)
        assert len(local.ids) == 3
        assert local.log_probs[0] >= local.log_probs[1] >= local.log_probs[2]
        # Interests change nothing about the advertisers.
        assert answer[contract.ADVERTISER_IDS] == forecast.advertiser_ids.tolist()
        alone = _ask(address, ensemble, events)
        assert [alone[name] for name in _NAMES] == [[], [], []]
        assert {**alone, **{name: answer[name] for name in _NAMES}} == answer


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_interests_are_answered_with_every_subset_of_outputs(
    interest_server: Served, ensemble: str
) -> None:
    subsets = output_subsets(ensemble, pairs=False)
    address = interest_server.server.grpc_address
    candidates = list(IDS.values())
    assert_subsets_are_answered(address, ensemble, user(5), candidates, subsets, INTEREST_TOP_K=[2])


def test_more_interests_than_there_are_names_are_all_of_them(interest_server: Served) -> None:
    address = interest_server.server.grpc_address
    answer = _ask(address, contract.ADVERTISER_RETRIEVAL, 3, INTEREST_TOP_K=[50])
    assert sorted(answer[contract.INTEREST_IDS]) == [7, 8, 9, 10, 11]


@pytest.mark.parametrize("top_k", [-1, contract.MAX_TOP_K + 1])
def test_an_impossible_number_of_interests_is_refused(interest_server: Served, top_k: int) -> None:
    address = interest_server.server.grpc_address
    with pytest.raises(InferenceServerException, match="INTEREST_TOP_K: found"):
        _ask(address, contract.ADVERTISER_RETRIEVAL, 3, INTEREST_TOP_K=[top_k])


def test_a_bundle_without_interests_answers_with_none(server: TritonServer) -> None:
    answer = _ask(server.grpc_address, contract.ADVERTISER_RETRIEVAL, 3, INTEREST_TOP_K=[5])
    assert [answer[name] for name in _NAMES] == [[], [], []]
    assert len(answer[contract.ADVERTISER_IDS]) == 10
