from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adprior_client.results import Ranking
from adprior_client.rollout.outcomes import OutcomeLog, Outcomes, compare_calibration
from adprior_client.types import Source
from adprior_runtime.errors import InvalidInputError
from support.outcome_logs import write_outcomes


def test_outcomes_are_added_up_by_bundle(tmp_path: Path) -> None:
    rows = [("blue", 1), ("blue", 0), ("green", 1), (None, 1), ("blue", None), ("red", 1)]
    log = OutcomeLog(write_outcomes(tmp_path / "log.parquet", rows, logit=math.log(3)))
    blue, green = log.read("blue", "green")
    assert (blue.observed, blue.expected) == pytest.approx((1, 1.5))
    assert (green.observed, green.expected) == pytest.approx((1, 0.75))
    assert log.read("blue", "grey")[1] == Outcomes()


def test_rows_of_a_ranking_are_a_log(tmp_path: Path) -> None:
    logits = np.array([0.0, math.log(3)])
    ranking = Ranking(
        logits=np.zeros(2),
        advertiser_ids=np.array([7, 8]),
        base_logits=np.zeros(2),
        adjusted_logits=logits,
        log_probs=np.zeros(2, dtype=np.float32),
        statuses=np.zeros(2, dtype=np.uint8),
        forecast=None,
        bundle_id="blue",
        source=Source.LIVE,
        age_s=None,
        reason=None,
        request_id="",
        treatment=True,
        applied=True,
    )
    rows = [row | {"label": label} for label, row in enumerate(ranking.to_log(request="1"))]
    directory = tmp_path / "log"
    directory.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), directory / "part.parquet")
    blue, _ = OutcomeLog(directory).read("blue", "green")
    assert (blue.observed, blue.expected) == pytest.approx((1, 1.25))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"label": [1]}, "no column bundle_id, adjusted_logit; found label"),
        (
            {"bundle_id": ["a"], "adjusted_logit": [0.5], "label": [2]},
            "label: found 2, expected 0 or 1",
        ),
        (
            {"bundle_id": ["a"], "adjusted_logit": [math.inf], "label": [1]},
            "adjusted_logit: found inf, expected a finite number",
        ),
    ],
)
def test_another_table_is_refused(tmp_path: Path, table: dict[str, object], message: str) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table(table), path)
    with pytest.raises(InvalidInputError, match=f"{path}: {message}"):
        OutcomeLog(path)


def test_a_log_that_breaks_later_keeps_its_outcomes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_outcomes(tmp_path / "log.parquet", [("blue", 1)])
    log = OutcomeLog(path)
    before = log.read("blue", "green")
    path.write_text("half")
    with caplog.at_level(logging.WARNING, "adprior_client"):
        assert log.read("blue", "green") == log.read("blue", "green") == before
    (message,) = caplog.messages
    assert "the outcomes read before stay: " in message
    write_outcomes(path, [("blue", 1), ("green", 1)])
    assert log.read("blue", "green")[1].observed == 1


def test_the_interval_is_garwoods() -> None:
    # 10 observed: 95 % exact Poisson limits 4.795 and 18.39. Half of 10 % each.
    exact = Outcomes(observed=10**9, expected=10**9)
    found = compare_calibration(exact, Outcomes(observed=10, expected=40), 0.9)
    assert (found.stable, found.canary, found.compared) == pytest.approx((1, 0.25, 4))
    assert (found.low, found.high) == pytest.approx((40 / 18.39, 40 / 4.795), rel=1e-3)


@pytest.mark.parametrize(("observed", "ratio"), [(2000, 2.0), (500, 2.0), (1000, 1.0)])
def test_too_high_is_as_bad_as_too_low(observed: int, ratio: float) -> None:
    stable = Outcomes(observed=1000, expected=1000)
    found = compare_calibration(stable, Outcomes(observed=observed, expected=1000), 0.95)
    assert found.compared == pytest.approx(ratio)
    assert found.low <= ratio <= found.high


def test_without_any_outcome_the_upper_end_is_open() -> None:
    stable = Outcomes(observed=1000, expected=1000)
    found = compare_calibration(stable, Outcomes(observed=0, expected=100), 0.95)
    assert found.low > 10
    assert math.isinf(found.high)
    nothing = compare_calibration(stable, Outcomes(), 0.95)
    assert math.isnan(nothing.low)
    assert math.isnan(nothing.high)


def test_the_interval_covers_the_true_ratio() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for stable, canary in rng.poisson((300 * 1.1, 60 * 1.4), (400, 2)):
        found = compare_calibration(
            Outcomes(observed=int(stable), expected=300),
            Outcomes(observed=int(canary), expected=60),
            0.95,
        )
        covered += found.low <= 1.4 / 1.1 <= found.high
    assert covered >= 380
