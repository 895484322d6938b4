"""The loss on advertisers' names, and the logit adjustment that corrects it for popularity.

``log_q`` is logit adjustment (Menon et al. 2021, "Long-tail learning via logit adjustment",
arXiv 2007.07314, equation 10): in training only, strength * log of a token's share is added to its
logit. It applies to the first token of a name, with the shares of the tokens that names begin with.
So the model serves p(name) / share(first token) ** strength, up to a constant: frequent names lose
the advantage that popularity alone gives them. A token that begins no name does not change, and
stays improbable. A name's later tokens and its terminator do not change either: they say which name
it is, not how popular it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from adprior_build.training.batches import Batch, start_positions
from adprior_build.training.checkpoint import next_token_logits
from adprior_build.training.examples import Example


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Objective:
    """Computes a model's loss on a batch.

    Attributes:
        bf16: Compute matrix products in bfloat16.
        label_smoothing: Share of a target's probability spread over the vocabulary.
        adjustment: float32 [vocabulary], added to the logits where a name begins.
    """

    bf16: bool = False
    label_smoothing: float = 0.0
    adjustment: torch.Tensor | None = None

    def mean_loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """Return the mean loss per target token, in nats."""
        with torch.autocast(batch.ids.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            hidden = model.get_decoder()(input_ids=batch.ids, use_cache=False).last_hidden_state
            logits = next_token_logits(model, hidden[batch.rows, batch.columns - 1])
        if self.adjustment is not None:
            logits = logits + batch.starts[:, None] * self.adjustment
        return torch.nn.functional.cross_entropy(
            logits, batch.ids[batch.rows, batch.columns], label_smoothing=self.label_smoothing
        )


def log_start_shares(
    examples: Sequence[Example], vocabulary: int, terminator: int | None
) -> torch.Tensor:
    """Return the log of each token's share among the first tokens of names.

    Returns:
        float32 [vocabulary]; 0 for a token that begins no name of the examples.
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
