from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from adprior_bench.server.workload import UserRequest, draw_requests, read_requests
from adprior_build.data.event_log import UserHistory
from adprior_runtime.bundle import ADVERTISERS_DIRECTORY, Bundle
from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.prompt.context import Event, parse_context


def test_requests_are_mixed_and_the_same_each_time(
    requests: list[UserRequest], tiny_bundle: Path
) -> None:
    assert requests == read_requests(Bundle.open(tiny_bundle), 12, None, None, None)
    lengths = {len(parse_context(each.context.encode()).history) for each in requests}
    assert len(lengths) > 3
    for each in requests:
        assert len(set(each.candidate_ids)) == len(each.base_logits) == 50


def test_candidates_hold_the_users_latest_advertisers(tiny_bundle: Path) -> None:
    advertisers = Advertisers.load(Bundle.open(tiny_bundle).path(ADVERTISERS_DIRECTORY))
    rows = np.random.default_rng(3).choice(len(advertisers.ids), 30, replace=False)
    events = [
        Event(
            time=datetime(2024, 1, 1 + day, tzinfo=UTC),
            action="purchase",
            advertiser=advertisers.name(int(row)).decode(),
        )
        for day, row in enumerate(rows)
    ]
    user = UserHistory(user_id="a", events=events)
    (request,) = draw_requests([user], advertisers, count=1, seed=1)
    past = parse_context(request.context.encode()).history
    own = [int(advertisers.ids[row]) for row in rows[: len(past)]]
    assert set(own[-20:]) <= set(request.candidate_ids)
    assert len(set(own) & set(request.candidate_ids)) < 30


def test_a_log_that_is_missing_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    with pytest.raises(InvalidInputError):
        read_requests(bundle, 3, tmp_path / "none.parquet", None, tmp_path / "map.toml")
