"""Requests for a part of an ensemble's outputs, as clients in other languages send them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import tritonclient.grpc as triton

from adprior_runtime import contract
from adprior_runtime.contract import Target
from adprior_runtime.repository import model_specs
from support.raw_requests import context_tensor, make_inputs

ENSEMBLES = (contract.ADVERTISER_RETRIEVAL, contract.ADVERTISER_RANKING)


def output_subsets(ensemble: str, *, pairs: bool) -> Iterator[tuple[str, ...]]:
    """Yield all outputs, each alone, all but one, each step's own, and pairs if wanted."""
    names = [tensor.name for tensor in model_specs.model(ensemble, Target.CPU).outputs]
    yield tuple(names)
    yield from ((name,) for name in names)
    yield from (tuple(n for n in names if n != name) for name in names)
    for step in (contract.ADVERTISER_DECODER, contract.PRIOR_HEAD):
        given = {tensor.name for tensor in model_specs.model(step, Target.CPU).outputs}
        yield from filter(None, (tuple(n for n in names if n in given),))
        yield from filter(None, (tuple(n for n in names if n not in given),))
    if pairs:
        yield from combinations(names, 2)


def assert_subsets_are_answered(
    address: str,
    ensemble: str,
    user: Mapping[str, Any],
    candidate_ids: Sequence[int],
    subsets: Iterable[tuple[str, ...]],
    **further: Sequence[int],
) -> None:
    """Assert that each subset is answered, with the same values as the whole answer.

    ``further`` are further inputs, which an ensemble may lack.
    """
    tensors = {
        contract.USER_CONTEXT: context_tensor(user),
        contract.CANDIDATE_ADVERTISER_IDS: candidate_ids,
        contract.BASE_LOGITS: np.linspace(-3, 1, len(candidate_ids)),
        **further,
    }
    inputs = make_inputs(ensemble, tensors)
    with triton.InferenceServerClient(address) as connection:
        whole = connection.infer(ensemble, inputs, client_timeout=30)
        for subset in subsets:
            requested = [triton.InferRequestedOutput(name) for name in subset]
            answer = connection.infer(ensemble, inputs, outputs=requested, client_timeout=30)
            assert {output.name for output in answer.get_response().outputs} == set(subset)
            for name in subset:
                np.testing.assert_array_equal(answer.as_numpy(name), whole.as_numpy(name))
