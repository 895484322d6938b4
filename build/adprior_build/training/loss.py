"""The loss on names, and its sums over batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from adprior_build.training.batches import Batch
from adprior_build.training.checkpoint import next_token_logits
from adprior_build.training.lower_states import LowerStates
from adprior_build.training.windows import INTEREST, NEW, Window


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Objective:
    """The negative log-probability of names.

    Attributes:
        model: A causal language model; with ``lower``, without its lower layers.
        bf16: Compute matrix products in bfloat16.
        device: Where the model is.
        lower: The lower layers' output; None if the model has all of its layers.
    """

    model: Any
    bf16: bool = False
    device: str = "cpu"
    lower: LowerStates | None = None

    def nats(self, windows: Sequence[Window]) -> tuple[torch.Tensor, Batch]:
        """Return the nats of each target token, float32 [target tokens], and the windows' batch."""
        batch = Batch.of(windows, device=self.device)
        states = None if self.lower is None else self.lower.of(windows)
        return name_nats(self.model, batch, states=states, bf16=self.bf16), batch


def name_nats(
    model: Any, batch: Batch, *, states: torch.Tensor | None = None, bf16: bool = False
) -> torch.Tensor:
    """Return the negative log-probability of each target token, in nats: float32 [target tokens].

    The vocabulary's softmax is computed where a target follows, and nowhere else.

    Args:
        model: A causal language model.
        batch: The sequences.
        states: float32 [sequences, longest, hidden]: what the model's first layer reads instead of
            embeddings, see `adprior_build.training.upper_layers`.
        bf16: Compute matrix products in bfloat16.
    """
    inputs = {"input_ids": batch.ids} if states is None else {"inputs_embeds": states}
    with torch.autocast(batch.ids.device.type, dtype=torch.bfloat16, enabled=bf16):
        hidden = model.get_decoder()(**inputs, use_cache=False).last_hidden_state
        logits = next_token_logits(model, hidden[batch.rows, batch.columns - 1])
    return torch.nn.functional.cross_entropy(
        logits, batch.ids[batch.rows, batch.columns], reduction="none"
    )


@dataclass(slots=True, kw_only=True)
class Tally:
    """Sums of nats and names: of all names, of those new to their user; and apart, of interests."""

    nats: float = 0.0
    names: int = 0
    new_nats: float = 0.0
    new_names: int = 0
    interest_nats: float = 0.0
    interests: int = 0

    def add(self, nats: torch.Tensor, batch: Batch) -> None:
        """Add a batch's nats [target tokens]."""
        self.nats += nats[batch.kinds != INTEREST].sum().item()
        self.names += batch.names
        self.new_nats += nats[batch.kinds == NEW].sum().item()
        self.new_names += batch.new_names
        self.interest_nats += nats[batch.kinds == INTEREST].sum().item()
        self.interests += batch.interests

    def merge(self, other: Tally) -> None:
        """Add another tally."""
        self.nats += other.nats
        self.names += other.names
        self.new_nats += other.new_nats
        self.new_names += other.new_names
        self.interest_nats += other.interest_nats
        self.interests += other.interests

    @property
    def per_name(self) -> float:
        """Nats a name; 0 without names."""
        return self.nats / max(1, self.names)

    @property
    def per_new_name(self) -> float | None:
        """Nats a name that is new to its user; None without any."""
        return self.new_nats / self.new_names if self.new_names else None

    @property
    def per_seen_name(self) -> float | None:
        """Nats a name that its user had before; None without any."""
        seen = self.names - self.new_names
        return (self.nats - self.new_nats) / seen if seen else None

    @property
    def per_interest(self) -> float | None:
        """Nats an interest; None without any."""
        return self.interest_nats / self.interests if self.interests else None

    def by_kind(self) -> dict[str, float]:
        """Return nats a ``new`` or a ``seen`` name, and an ``interest``; no key without any."""
        found = {
            "new": self.per_new_name, "seen": self.per_seen_name, "interest": self.per_interest
        }  # fmt: skip
        return {kind: nats for kind, nats in found.items() if nats is not None}
