"""A SASRec-like model: a small causal transformer over advertisers, categories and time gaps.

The model follows Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018), but the
loss is a softmax over all advertisers instead of sampled negatives, which is stronger (Klenitskiy
and Vasilev, RecSys 2023).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from adprior_bench.quality.baselines.base import Training
from adprior_bench.quality.histories import EncodedCase, EncodedUser, Float64Array
from adprior_runtime.terminal.progress import track

_GAPS = 16
_SEED = 11
_HEADS = 2
_BATCH = 16


class Sequential:
    """The next advertiser, predicted from the sequence of earlier ones.

    Args:
        training: The users.
        width: Width of the embeddings.
        layers: Number of transformer blocks.
        dropout: Dropout of embeddings and blocks.
        length: Number of latest events that it sees.
        epochs: Passes over the training users.
        learning_rate: Learning rate of Adam.
    """

    def __init__(
        self,
        training: Training,
        *,
        width: int = 64,
        layers: int = 2,
        dropout: float = 0.3,
        length: int = 200,
        epochs: int = 30,
        learning_rate: float = 1e-3,
    ) -> None:
        self._length = length
        generator = torch.Generator().manual_seed(_SEED)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            self._network = _Network(training, width, layers, dropout, length)
            optimizer = torch.optim.Adam(self._network.parameters(), lr=learning_rate)
            for _ in track(range(epochs), desc="sasrec, training", unit="epoch", leave=False):
                for inputs, targets in _batches(training.users, length, generator):
                    _step(self._network, optimizer, inputs, targets)
        self._network.eval()

    def probabilities(self, case: EncodedCase) -> Float64Array:
        """See `Baseline.probabilities`."""
        events = _sequence(case.user, case.stop, case.day)[-self._length :]
        with torch.no_grad():
            hidden = self._network(torch.from_numpy(events[None]))
            logits = self._network.logits(hidden[0, -1])
        found: Float64Array = torch.softmax(logits.double(), dim=-1).numpy()
        return found


class _Network(nn.Module):
    """Embeddings of advertiser, category, gap and position; blocks; tied output weights."""

    def __init__(
        self, training: Training, width: int, layers: int, dropout: float, length: int
    ) -> None:
        super().__init__()
        self.advertisers = nn.Embedding(training.advertisers + 1, width, padding_idx=0)
        self.categories = nn.Embedding(training.categories + 1, width, padding_idx=0)
        self.gaps = nn.Embedding(_GAPS, width)
        self.positions = nn.Embedding(length, width)
        for table in (self.advertisers, self.categories, self.gaps, self.positions):
            nn.init.normal_(table.weight, std=width**-0.5)
        block = nn.TransformerEncoderLayer(
            width, _HEADS, 2 * width, dropout, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.bias = nn.Parameter(torch.zeros(training.advertisers))

    def forward(self, events: torch.Tensor) -> torch.Tensor:
        """Return hidden states [users, events, width] of `_sequence` columns [users, events, 3]."""
        length = events.shape[1]
        embedded = self.advertisers(events[..., 0]) + self.categories(events[..., 1])
        embedded = embedded + self.gaps(events[..., 2]) + self.positions(torch.arange(length))
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        blocks = self.blocks(self.dropout(embedded), mask=mask, is_causal=True)
        hidden: torch.Tensor = self.norm(blocks)
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits [..., advertisers] of the next event."""
        found: torch.Tensor = hidden @ self.advertisers.weight[1:].T + self.bias
        return found


def _step(
    network: _Network, optimizer: torch.optim.Adam, events: torch.Tensor, targets: torch.Tensor
) -> None:
    known = targets >= 0
    loss = nn.functional.cross_entropy(network.logits(network(events)[known]), targets[known])
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _sequence(user: EncodedUser, stop: int, day: int) -> npt.NDArray[np.int64]:
    """Return int64 [1 + stop, 3]: advertiser and category from 1 (0: none), gap to the next event.

    The first row stands for the beginning. Gaps are powers of two of a day.
    """
    rows = np.concatenate([[0], np.maximum(user.rows[:stop], -1) + 1])
    categories = np.concatenate([[0], np.maximum(user.categories[:stop], -1) + 1])
    times = np.concatenate([user.days[:1] if stop else [day], user.days[:stop], [day]])
    gaps = np.minimum(np.ceil(np.log2(1 + np.diff(times))), _GAPS - 1)
    found: npt.NDArray[np.int64] = np.stack([rows, categories, gaps], axis=1).astype(np.int64)
    return found


def _batches(
    users: Sequence[EncodedUser], length: int, generator: torch.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield inputs and targets of random stretches of users' histories, padded at the end."""
    order = torch.randperm(len(users), generator=generator).tolist()
    for start in range(0, len(order), _BATCH):
        stretches = []
        for place in order[start : start + _BATCH]:
            user = users[place]
            count = len(user.rows)
            if count == 0:
                continue
            events = _sequence(user, count - 1, int(user.days[-1]))
            targets = np.where(user.rows >= 0, user.rows, -1) + 1  # 0 pads
            latest = max(0, count - length)
            first = int(torch.randint(latest + 1, (1,), generator=generator))
            columns = np.column_stack([events, targets])[first : first + length]
            stretches.append(torch.from_numpy(columns))
        if any((stretch[:, 3] > 0).any() for stretch in stretches):
            padded = nn.utils.rnn.pad_sequence(stretches, batch_first=True)
            yield padded[..., :3], padded[..., 3] - 1
