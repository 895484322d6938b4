from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from adprior_build.training.batches import Batch, start_positions
from adprior_build.training.examples import Example
from adprior_build.training.loss import Objective, log_start_shares
from unit.build.training.test_batches import END, EXAMPLES


class Table(torch.nn.Module):
    """A causal language model whose logits depend only on the last token."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(get_text_config=SimpleNamespace)
        generator = torch.Generator().manual_seed(3)
        self.table = torch.nn.Embedding(10, 10)
        self.table.weight.data = torch.randn((10, 10), generator=generator)

    def get_decoder(self) -> Any:
        return lambda input_ids, **_: SimpleNamespace(last_hidden_state=self.table(input_ids))

    def get_output_embeddings(self) -> Any:
        return torch.nn.Identity()


def expected_loss(*, smoothing: float = 0.0, adjustment: Any = 0.0) -> float:
    """Return the mean loss by NumPy; ``adjustment`` is added where a name begins."""
    table = Table().table.weight.detach().double().numpy()
    losses = []
    for example in EXAMPLES:
        starts = start_positions(example, END)
        for position in example.target_positions:
            logits = table[example.token_ids[position - 1]]
            if position in starts:
                logits = logits + adjustment
            log_probs = logits - np.log(np.exp(logits).sum())
            target = (1 - smoothing) * np.eye(10)[example.token_ids[position]] + smoothing / 10
            losses.append(-(target * log_probs).sum())
    return float(np.mean(losses))


SHARES = [1, 1, 1, 1, 1, 0.75, 1, 0.25, 1, 1]
"""Shares of the first tokens of names; 1 where no name begins."""


def test_shares_are_those_of_the_first_tokens_of_names() -> None:
    assert log_start_shares(EXAMPLES, 10, END).exp().tolist() == pytest.approx(SHARES)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (Objective(), expected_loss()),
        (Objective(label_smoothing=0.3), expected_loss(smoothing=0.3)),
        (
            Objective(adjustment=0.5 * log_start_shares(EXAMPLES, 10, END)),
            expected_loss(adjustment=0.5 * np.log(SHARES)),
        ),
    ],
    ids=["plain", "smoothed", "adjusted"],
)
def test_the_loss_is_the_mean_over_target_tokens(objective: Objective, expected: float) -> None:
    found = objective.mean_loss(Table(), Batch.of(EXAMPLES, terminator=END))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_an_adjusted_training_serves_shares_divided_by_popularity() -> None:
    """Two names seen 3 : 1 are served 1 : 1 with strength 1, sqrt(3) : 1 with strength 1/2."""
    taught = [Example([1, token, END], [1, 2]) for token in (5, 5, 5, 7)]
    for strength, ratio in ((0.0, 3.0), (0.5, 3**0.5), (1.0, 1.0)):
        model = Table()
        adjustment = strength * log_start_shares(taught, 10, END)
        objective = Objective(adjustment=adjustment)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for _ in range(400):
            optimizer.zero_grad()
            objective.mean_loss(model, Batch.of(taught, terminator=END)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        probabilities = torch.softmax(model.table.weight.detach()[1], dim=0)
        assert (probabilities[5] / probabilities[7]).item() == pytest.approx(ratio, rel=0.02)
        assert probabilities[[5, 7]].sum() > 0.97
