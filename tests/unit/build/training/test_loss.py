from __future__ import annotations

import pytest
import torch

from adprior_build.training.loss import Objective, Tally
from support.small_models import small_gemma3
from support.windows import make_window
from unit.build.training.test_batches import END, WINDOWS


def test_the_loss_is_each_target_tokens_negative_log_probability() -> None:
    model = small_gemma3()
    nats, batch = Objective(model=model).nats(WINDOWS)
    expected = []
    for window in WINDOWS:
        ids = torch.from_numpy(window.token_ids).long()
        with torch.no_grad():
            log_probs = torch.log_softmax(model(ids[None]).logits[0].double(), dim=-1)
        expected += [-log_probs[at - 1, ids[at]].item() for at in window.targets.tolist()]
    assert nats.tolist() == pytest.approx(expected, abs=1e-4)
    assert batch.targets == len(expected) == 9


def test_a_tally_tells_new_names_from_seen_ones() -> None:
    model, tally, whole = small_gemma3(), Tally(), Tally()
    for window in WINDOWS:
        tally.add(*Objective(model=model).nats([window]))
    nats, batch = Objective(model=model).nats(WINDOWS)
    whole.add(nats, batch)
    new = nats[[3, 4]].sum().item()
    assert tally.per_name == pytest.approx(nats.sum().item() / 4)
    assert whole.per_name == pytest.approx(tally.per_name)
    assert tally.per_new_name == pytest.approx(new)
    assert tally.per_seen_name == pytest.approx((nats.sum().item() - new) / 3)
    assert (Tally().per_name, Tally().per_new_name, Tally().per_seen_name) == (0, None, None)


def test_a_tally_keeps_interests_apart() -> None:
    model, plain, tally = small_gemma3(), Tally(), Tally()
    ids = [1, 5, 6, END, 2, 7, END]
    plain.add(*Objective(model=model).nats([make_window(ids, [1, 2, 3], {1, 2, 3}, end=END)]))
    window = make_window(ids, [1, 2, 3, 5, 6], {1, 2, 3}, end=END, interest={5, 6})
    nats, batch = Objective(model=model).nats([window])
    tally.add(nats, batch)
    tally.merge(Tally(interest_nats=1.0, interests=1))
    assert batch.interests == 1
    assert (tally.names, tally.new_names) == (1, 1)
    assert tally.per_name == pytest.approx(plain.per_name)
    assert tally.per_interest == pytest.approx((nats[3:].sum().item() + 1) / 2)
    assert plain.by_kind() == {"new": plain.per_name}
    assert tally.by_kind().keys() == {"new", "interest"}
