from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from adprior_build.training.examples import Example
from adprior_build.training.loss import Batch, Objective, log_start_shares, start_positions

END = 9
EXAMPLES = [
    Example([1, 5, 6, END, 7, END, 2, 5, END], [1, 2, 3, 4, 5, 7, 8]),
    Example([1, 2, 5, END], [2, 3]),
]


class Table(torch.nn.Module):
    """A causal language model whose logits depend on the last token alone."""

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


def logits_of(example: Example) -> tuple[np.ndarray[Any, Any], list[int]]:
    """Rows of logits before each target, and the targets."""
    table = Table().table.weight.detach().double().numpy()
    before = [example.token_ids[position - 1] for position in example.target_positions]
    return table[before], [example.token_ids[position] for position in example.target_positions]


def log_softmax(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    result: np.ndarray[Any, Any] = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return result


def test_a_batch_is_padded_on_the_right() -> None:
    batch = Batch.of(EXAMPLES, terminator=END)
    assert batch.ids.tolist() == [[1, 5, 6, 9, 7, 9, 2, 5, 9], [1, 2, 5, 9, 0, 0, 0, 0, 0]]
    assert batch.rows.tolist() == [0] * 7 + [1] * 2
    assert batch.columns.tolist() == [1, 2, 3, 4, 5, 7, 8, 2, 3]
    assert (batch.tokens, batch.targets) == (13, 9)


def test_names_begin_after_other_tokens_and_after_names() -> None:
    assert start_positions(EXAMPLES[0], END) == [1, 4, 7]
    assert start_positions(EXAMPLES[0], None) == [1, 7]
    starts = Batch.of(EXAMPLES, terminator=END).starts
    assert starts.nonzero().flatten().tolist() == [0, 3, 5, 7]


def test_shares_are_of_the_tokens_that_names_begin_with() -> None:
    shares = log_start_shares(EXAMPLES, 10, END).exp()
    assert shares.tolist() == pytest.approx([1, 1, 1, 1, 1, 0.75, 1, 0.25, 1, 1])


def test_the_plain_loss_is_the_mean_negative_log_likelihood() -> None:
    found = Objective().mean_loss(Table(), Batch.of(EXAMPLES))
    losses = []
    for example in EXAMPLES:
        logits, targets = logits_of(example)
        losses += [-log_softmax(logits)[row, token] for row, token in enumerate(targets)]
    assert found.item() == pytest.approx(np.mean(losses), abs=1e-6)


def test_label_smoothing_mixes_in_the_uniform_distribution() -> None:
    found = Objective(label_smoothing=0.3).mean_loss(Table(), Batch.of(EXAMPLES))
    losses = []
    for example in EXAMPLES:
        logits, targets = logits_of(example)
        log_probs = log_softmax(logits)
        truth = 0.7 * np.eye(10)[targets] + 0.03
        losses += (-(truth * log_probs).sum(axis=1)).tolist()
    assert found.item() == pytest.approx(np.mean(losses), abs=1e-6)


def test_the_correction_adds_to_the_logits_where_names_begin() -> None:
    adjustment = 0.5 * log_start_shares(EXAMPLES, 10, END)
    objective = Objective(adjustment=adjustment)
    found = objective.mean_loss(Table(), Batch.of(EXAMPLES, terminator=END))
    losses = []
    for example in EXAMPLES:
        logits, targets = logits_of(example)
        for row, (position, token) in enumerate(
            zip(example.target_positions, targets, strict=True)
        ):
            corrected = logits[row].copy()
            if position in start_positions(example, END):
                corrected += 0.5 * np.log([1, 1, 1, 1, 1, 0.75, 1, 0.25, 1, 1])
            losses.append(-log_softmax(corrected)[token])
    assert found.item() == pytest.approx(np.mean(losses), abs=1e-6)


def test_a_corrected_training_serves_shares_divided_by_popularity() -> None:
    """Of two names seen 3 : 1, strength 1 serves both alike, strength 1/2 sqrt(3) : 1."""
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
