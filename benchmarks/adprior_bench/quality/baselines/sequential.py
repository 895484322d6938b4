"""A SASRec-like model: a small causal transformer over advertiser and category ids.

As in Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018), with the softmax
over all advertisers for a loss instead of sampled negatives, which is stronger (Klenitskiy and
Vasilev, RecSys 2023). It sees what the language model sees: advertisers, categories, days between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from adprior_bench.quality.baselines.base import Training
from adprior_bench.quality.histories import EncodedCase, EncodedUser, Float64Array
from adprior_runtime.terminal.progress import track

_GAPS = 16
_SEED = 11
_Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialSettings:
    """Shape and training of the model.

    Attributes:
        width: Of the embeddings.
        layers: Transformer blocks of two heads.
        dropout: Of embeddings and blocks.
        length: The latest events that it sees.
        epochs: Passes over the training users.
        learning_rate: Adam's.
    """

    width: int = 64
    layers: int = 2
    dropout: float = 0.3
    length: int = 200
    epochs: int = 30
    learning_rate: float = 1e-3


class Sequential:
    """Next advertiser from the sequence of earlier ones."""

    def __init__(self, training: Training, settings: SequentialSettings) -> None:
        self._settings = settings
        self._advertisers = training.advertisers
        generator = torch.Generator().manual_seed(_SEED)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            self._network = _Network(training, settings)
            self._fit(training.users, generator)
        self._network.eval()

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """See `Baseline.probabilities`."""
        rows, categories, gaps = _sequence(case.user, case.stop, case.day)
        last = slice(-self._settings.length, None)
        with torch.no_grad():
            hidden = self._network(
                *(torch.from_numpy(values[None, last]) for values in (rows, categories, gaps))
            )
            logits = self._network.logits(hidden[0, -1])
        found: Float64Array = torch.softmax(logits.double(), dim=-1).numpy()
        return found

    def _fit(self, users: Sequence[EncodedUser], generator: torch.Generator) -> None:
        settings = self._settings
        optimizer = torch.optim.Adam(self._network.parameters(), lr=settings.learning_rate)
        self._network.train()
        for _ in track(range(settings.epochs), desc="sasrec, training", unit="epoch", leave=False):
            for inputs, targets in _batches(users, settings.length, generator):
                known = targets >= 0
                logits = self._network.logits(self._network(*inputs)[known])
                loss = nn.functional.cross_entropy(logits, targets[known])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()


class _Network(nn.Module):
    """Embeddings of advertiser, category, gap and place; blocks; tied output."""

    def __init__(self, training: Training, settings: SequentialSettings) -> None:
        super().__init__()
        width = settings.width
        self.advertisers = nn.Embedding(training.advertisers + 1, width, padding_idx=0)
        self.categories = nn.Embedding(training.categories + 1, width, padding_idx=0)
        self.gaps = nn.Embedding(_GAPS, width)
        self.places = nn.Embedding(settings.length, width)
        for table in (self.advertisers, self.categories, self.gaps, self.places):
            nn.init.normal_(table.weight, std=width**-0.5)
        block = nn.TransformerEncoderLayer(
            width, 2, 2 * width, settings.dropout, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, settings.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(settings.dropout)
        self.bias = nn.Parameter(torch.zeros(training.advertisers))

    def forward(
        self, rows: torch.Tensor, categories: torch.Tensor, gaps: torch.Tensor
    ) -> torch.Tensor:
        """Return hidden states [users, events, width], each after an event."""
        length = rows.shape[1]
        hidden = self.dropout(
            self.advertisers(rows)
            + self.categories(categories)
            + self.gaps(gaps)
            + self.places(torch.arange(length))
        )
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        found: torch.Tensor = self.norm(self.blocks(hidden, mask=mask, is_causal=True))
        return found

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits [..., advertisers] of what comes next."""
        found: torch.Tensor = hidden @ self.advertisers.weight[1:].T + self.bias
        return found


def _sequence(
    user: EncodedUser, stop: int, day: int
) -> tuple[_Int64Array, _Int64Array, _Int64Array]:
    """Return advertisers and categories from 1 (0: none), and how long until the next event.

    The first position stands for the beginning. Gaps are coarse, in powers of two of a day.
    """
    rows = np.concatenate([[0], np.maximum(user.rows[:stop], -1) + 1]).astype(np.int64)
    categories = np.concatenate([[0], np.maximum(user.categories[:stop], -1) + 1])
    times = np.concatenate([user.days[:1] if stop else [day], user.days[:stop], [day]])
    gaps = np.minimum(np.ceil(np.log2(1 + np.diff(times))), _GAPS - 1)
    return rows, categories.astype(np.int64), gaps.astype(np.int64)


def _batches(
    users: Sequence[EncodedUser], length: int, generator: torch.Generator, size: int = 16
) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
    """Yield inputs and targets of random stretches of users' histories, padded on the right."""
    order = torch.randperm(len(users), generator=generator).tolist()
    for start in range(0, len(order), size):
        chosen = [users[place] for place in order[start : start + size]]
        stretches = []
        for user in chosen:
            count = len(user.rows)
            if count == 0:
                continue
            rows, categories, gaps = _sequence(user, count - 1, int(user.days[-1]))
            targets = np.where(user.rows >= 0, user.rows, -1).astype(np.int64)
            latest = max(0, count - length)
            first = int(torch.randint(latest + 1, (1,), generator=generator))
            part = slice(first, first + length)
            stretches.append((rows[part], categories[part], gaps[part], targets[part]))
        if not any((stretch[3] >= 0).any() for stretch in stretches):
            continue
        longest = max(len(stretch[0]) for stretch in stretches)
        padded = [
            torch.from_numpy(
                np.stack(
                    [
                        np.pad(s[column], (0, longest - len(s[column])), constant_values=filler)
                        for s in stretches
                    ]
                )
            )
            for column, filler in ((0, 0), (1, 0), (2, 0), (3, -1))
        ]
        yield padded[:3], padded[3]
