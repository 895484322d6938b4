"""The optimisation loop: batches, loss on the advertisers' names, the best epoch kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm
from transformers.utils import logging

from adprior_build.checkpoint import next_token_logits
from adprior_build.examples import Example, ExampleSource
from adprior_runtime.errors import InvalidInputError

__all__ = ["Settings", "prepare", "train"]

_WARM_UP_STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train; ``bf16`` computes matrix products in bfloat16, weights stay float32."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    bf16: bool


def prepare(seed: int, threads: int) -> None:
    """Fix the seed and the number of threads (0: all)."""
    torch.manual_seed(seed)
    logging.disable_progress_bar()  # of transformers; ours tells more
    if threads:
        torch.set_num_threads(threads)


def train(
    model: Any, source: ExampleSource, validation: Sequence[Example], settings: Settings
) -> list[dict[str, float]]:
    """Train ``model`` in place and leave it at the epoch of least validation loss.

    Returns:
        One row an epoch: ``epoch``, ``loss``, ``validation_loss`` (nats per token of a name).
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    steps = -(-len(source.epoch(0)) // settings.batch_size)
    total = steps * settings.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, total))
    rows: list[dict[str, float]] = []
    best: tuple[float, dict[str, Any]] = (math.inf, {})
    with tqdm(total=total, unit="batch", desc="adprior train", dynamic_ncols=True) as bar:
        for epoch in range(settings.epochs):
            examples = source.epoch(epoch)
            bar.total += -(-len(examples) // settings.batch_size) - steps  # epochs differ a little
            loss = _run_epoch(model, examples, optimizer, schedule, settings, bar)
            checked = _mean_loss(model, validation, settings) if validation else loss
            if not math.isfinite(checked):
                raise InvalidInputError(
                    f"the loss of epoch {epoch} is {checked}: training diverged; "
                    f"lower --learning-rate ({settings.learning_rate:g})"
                )
            rows.append({"epoch": epoch, "loss": loss, "validation_loss": checked})
            bar.write(f"epoch {epoch}: loss {loss:.4f}, validation {checked:.4f}")
            if checked < best[0]:
                best = (checked, {k: v.clone() for k, v in model.state_dict().items()})
    model.load_state_dict(best[1])
    return rows


def _run_epoch(
    model: Any,
    examples: Sequence[Example],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    settings: Settings,
    bar: Any,
) -> float:
    model.train()
    losses = []
    for batch in _batches(examples, settings.batch_size):
        loss = _loss(model, batch, settings)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append((loss.item(), _target_count(batch)))
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        bar.update()
    return _mean(losses)


def _schedule(step: int, total: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    warm_up = min(_WARM_UP_STEPS, max(1, total // 10))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.05 + 0.475 * (1 + math.cos(math.pi * min(1.0, step / max(1, total))))


def _mean_loss(model: Any, examples: Sequence[Example], settings: Settings) -> float:
    model.eval()
    with torch.no_grad():
        losses = [
            (_loss(model, batch, settings).item(), _target_count(batch))
            for batch in _batches(examples, settings.batch_size)
        ]
    return _mean(losses)


def _target_count(batch: Sequence[Example]) -> int:
    return sum(len(example.target_positions) for example in batch)


def _mean(losses: Sequence[tuple[float, int]]) -> float:
    """Return the mean loss of a token from those of batches and their numbers of tokens."""
    return sum(loss * count for loss, count in losses) / sum(count for _, count in losses)


def _batches(examples: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
    for start in range(0, len(examples), size):
        yield examples[start : start + size]


def _loss(model: Any, batch: Sequence[Example], settings: Settings) -> torch.Tensor:
    """Mean negative log-likelihood over the target tokens of a batch.

    Sequences are padded on the right, where a causal model's earlier positions never look.
    """
    longest = max(len(example.token_ids) for example in batch)
    ids = torch.zeros((len(batch), longest), dtype=torch.long)
    for row, example in enumerate(batch):
        ids[row, : len(example.token_ids)] = torch.tensor(example.token_ids)
    rows = torch.tensor([r for r, e in enumerate(batch) for _ in e.target_positions])
    columns = torch.tensor([p for e in batch for p in e.target_positions])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.bf16):
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        logits = next_token_logits(model, hidden[rows, columns - 1])
    return torch.nn.functional.cross_entropy(logits, ids[rows, columns])
