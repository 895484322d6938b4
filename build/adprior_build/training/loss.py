"""The loss on advertisers' names, and what it may be corrected by.

``log_q`` is logit adjustment (Menon et al. 2021, "Long-tail learning via logit adjustment",
arXiv 2007.07314, equation 10): in training alone, strength * log of a token's share is added to its
logit. It is applied where a name begins, with the shares of the tokens that names begin with, so
that what is served is p(name) / share(first token) ** strength, up to a constant: rare names gain
by what popularity alone would give the frequent ones. A token that no name begins with is left as
it is, and stays improbable. Later tokens of a name, and its terminator, are not touched: they say
which name it is, not how popular.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from adprior_build.training.checkpoint import next_token_logits
from adprior_build.training.examples import Example


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Sequences padded on the right, where a causal model's earlier positions never look.

    Attributes:
        ids: int64 [sequences, longest].
        rows: int64 [targets], the sequence of each target.
        columns: int64 [targets], its position there.
        starts: bool [targets], whether a name begins with it.
        tokens: How many tokens the sequences have, padding left out.
    """

    ids: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    starts: torch.Tensor
    tokens: int

    @classmethod
    def of(
        cls, examples: Sequence[Example], *, terminator: int | None = None, device: str = "cpu"
    ) -> Batch:
        """Gather examples; ``terminator`` is the token that ends a name."""
        longest = max(len(example.token_ids) for example in examples)
        ids = torch.zeros((len(examples), longest), dtype=torch.long)
        for row, example in enumerate(examples):
            ids[row, : len(example.token_ids)] = torch.tensor(example.token_ids)
        starts = [set(start_positions(example, terminator)) for example in examples]
        places = [(r, p) for r, example in enumerate(examples) for p in example.target_positions]
        tensors = [
            ids,
            torch.tensor([row for row, _ in places]),
            torch.tensor([position for _, position in places]),
            torch.tensor([position in starts[row] for row, position in places]),
        ]
        if device != "cpu":  # pinned memory is copied while the device computes
            tensors = [item.pin_memory().to(device, non_blocking=True) for item in tensors]
        return cls(
            ids=tensors[0],
            rows=tensors[1],
            columns=tensors[2],
            starts=tensors[3],
            tokens=sum(len(example.token_ids) for example in examples),
        )

    @property
    def targets(self) -> int:
        """How many tokens loss falls on."""
        return len(self.rows)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Objective:
    """What a model's loss on a batch is.

    Attributes:
        bf16: Compute matrix products in bfloat16.
        label_smoothing: Share of a target's probability spread over the vocabulary.
        adjustment: float32 [vocabulary], added to the logits where a name begins.
    """

    bf16: bool = False
    label_smoothing: float = 0.0
    adjustment: torch.Tensor | None = None

    def mean_loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return the mean loss of a target token, in nats."""
        with torch.autocast(batch.ids.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            hidden = model.get_decoder()(input_ids=batch.ids, use_cache=False).last_hidden_state
            logits = next_token_logits(model, hidden[batch.rows, batch.columns - 1])
        if self.adjustment is not None:
            logits = logits + batch.starts[:, None] * self.adjustment
        return torch.nn.functional.cross_entropy(
            logits, batch.ids[batch.rows, batch.columns], label_smoothing=self.label_smoothing
        )


def start_positions(example: Example, terminator: int | None) -> list[int]:
    """Return the target positions that a name begins at.

    Those are the ones that follow no other target, and those right after a name's ``terminator``.
    """
    targets = set(example.target_positions)
    return [
        position
        for position in example.target_positions
        if position - 1 not in targets or example.token_ids[position - 1] == terminator
    ]


def log_start_shares(
    examples: Sequence[Example], vocabulary: int, terminator: int | None
) -> torch.Tensor:
    """Return the log of each token's share among those that names begin with.

    Returns:
        float32 [vocabulary]; 0 for a token that no name of the examples begins with.
    """
    counts = Counter(
        example.token_ids[position]
        for example in examples
        for position in start_positions(example, terminator)
    )
    shares = torch.ones(vocabulary, dtype=torch.float64)
    for token, count in counts.items():
        shares[token] = count / counts.total()
    return shares.log().float()
