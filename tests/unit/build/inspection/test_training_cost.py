from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from adprior_build.data.event_table import EventTable
from adprior_build.inspection.coded_log import CodedLog
from adprior_build.inspection.split_facts import SplitFacts
from adprior_build.inspection.training_cost import TrainingCost


def cost_of(events: int, name: str, text: str | None, profile: dict[str, str]) -> TrainingCost:
    """Return the cost of a log of one user with an event a day, all of it trained on."""
    days = [(date(2024, 1, 1) + timedelta(days=n)).isoformat() for n in range(events)]
    columns = {"user": ["u"] * events, "time": days, "advertiser": [name] * events}
    columns |= {} if text is None else {"text": [text] * events}
    log = EventTable(
        table=pa.table(columns), rows=np.arange(events), repeated_dropped=0, repeated_kept=0
    )
    coded = CodedLog.of(log)
    split = SplitFacts(
        cut=None, test_share=0.0, training_users=1, training_events=events, test_users=0,
        test_events=0, example=None,
    )  # fmt: skip
    return TrainingCost.estimate(coded, split, {"u": profile})


def test_a_short_history_is_one_window() -> None:
    cost = cost_of(10, "Acme", None, {"age": "30s"})
    assert cost.tokens == int(10 * (4 / 4 + 1 + 3) + 1 + 5 / 2)
    assert cost.tokens_without_text == cost.tokens


def test_a_long_history_repeats_a_fifth_of_each_window() -> None:
    cost = cost_of(1000, "Acme", None, {})
    windows = np.ceil((5000 - 383) / (0.8 * 383)) + 1
    assert cost.tokens == pytest.approx(5000 + windows + (windows - 1) * 0.2 * 383, abs=1)


def test_text_is_counted_as_far_as_the_model_reads_it() -> None:
    cost = cost_of(10, "Acme", "x" * 900, {})
    assert cost.tokens - cost.tokens_without_text == 10 * (64 // 4 + 1)


def test_the_time_is_a_range() -> None:
    cost = cost_of(10, "Acme", None, {})
    slow, fast = cost.tokens_per_s
    assert 0 < slow < fast
    assert cost.minutes == pytest.approx((cost.tokens / fast / 60, cost.tokens / slow / 60))
