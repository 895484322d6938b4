"""The training loop: batches, steps, the best epoch's weights, and the state kept on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

import torch
from transformers.utils import logging

from adprior_build.training.batches import Batch, cut_into_batches
from adprior_build.training.checkpoint import set_torch_threads
from adprior_build.training.dropout import dropout
from adprior_build.training.examples import EpochExamples, Example
from adprior_build.training.loss import Objective, log_start_shares
from adprior_build.training.optimizer import (
    learning_rate_factor,
    make_optimizer,
    restore_tensors,
    state_tensors,
    trained_parameters,
)
from adprior_build.training.progress import Position, ProgressLine, Schedule, describe_epoch
from adprior_build.training.settings import Settings
from adprior_build.training.state import KeptState, StateKeeper
from adprior_build.training.validation import Validation
from adprior_runtime.errors import InvalidInputError

_LARGEST_GRADIENT: Final = 1.0
_LONG_VALIDATION_S: Final = 5.0
"""The state is saved before a validation that takes longer."""
_SEED_PART: Final = 1
"""Separates the draws of the batches' order from those of the examples, which use the same seed."""


def prepare(seed: int, threads: int, device: str = "cpu") -> None:
    """Set torch's seed and its number of threads; 0 threads: as many as the process may use.

    Raises:
        InvalidInputError: The device does not exist.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError("--device cuda: torch finds no CUDA device; use --device cpu")
    torch.manual_seed(seed)
    logging.disable_progress_bar()  # transformers' bar; ours says more
    set_torch_threads(threads)


def train(
    model: Any,
    epoch_examples: EpochExamples,
    validation: Sequence[Example],
    settings: Settings,
    *,
    terminator: int | None = None,
    start_share: float = 0.0,
    keeper: StateKeeper | None = None,
    kept: KeptState | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Position:
    """Train ``model`` in place; leave it on the CPU with the weights of the best epoch.

    With a ``start_share``, the final weights lie between these and the initial ones, as in WiSE-FT
    (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", arXiv 2109.01903).

    Args:
        model: A causal language model; parameters that require no gradient stay as they are.
        epoch_examples: Returns an epoch's examples; a resumed training needs the same ones.
        validation: Examples that choose the best epoch; without any, the training loss does.
        settings: The loop's settings.
        terminator: The token that ends a name.
        start_share: Share of the initial weights in the final ones.
        keeper: Keeps the state after every epoch and every few minutes.
        kept: The state to resume from.
        clock: Returns seconds.

    Returns:
        The final position.

    Raises:
        InvalidInputError: The training diverged, or its state cannot be kept.
    """
    model.to(settings.device)
    start = {name: w.detach().clone() for name, w in trained_parameters(model).items()}
    with dropout(model, settings.dropout):
        run = _Run(model, epoch_examples, validation, settings, terminator, keeper, kept, clock)
        position = run.finish()
    with torch.no_grad():
        for name, weights in trained_parameters(model).items():
            weights.lerp_(start[name], start_share)
    model.to("cpu").eval()
    return position


class _Run:
    def __init__(
        self,
        model: Any,
        epoch_examples: EpochExamples,
        validation: Sequence[Example],
        settings: Settings,
        terminator: int | None,
        keeper: StateKeeper | None,
        kept: KeptState | None,
        clock: Callable[[], float],
    ) -> None:
        self._model, self._epoch_examples, self._settings = model, epoch_examples, settings
        self._terminator, self._keeper = terminator, keeper
        self._optimizer = make_optimizer(model, settings.learning_rate, settings.weight_decay)
        first = epoch_examples(0)
        adjustment = None
        if settings.log_q:
            vocabulary = model.get_output_embeddings().weight.shape[0]
            shares = log_start_shares(first, vocabulary, terminator)
            adjustment = settings.log_q * shares.to(settings.device)
        self._objective = Objective(
            bf16=settings.bf16, label_smoothing=settings.label_smoothing, adjustment=adjustment
        )
        self._validation = Validation(validation, settings)
        self._position = Position()
        self._best: dict[str, torch.Tensor] = {}
        if kept is not None:
            self._position = Position(**kept.position)
            self._position.resumed += 1
            self._best = dict(kept.best)
            restore_tensors(model, self._optimizer, kept.tensors)
        steps = -(-len(first) // settings.batch_size)
        self._schedule = Schedule(settings, self._position, steps, clock)
        self._kept_at = self._position.seconds

    def finish(self) -> Position:
        """Train to the end and load the best epoch's weights."""
        with ProgressLine(self._schedule.share_shown()) as line:
            while not self._schedule.is_over():
                steps = self._train_epoch(line)
                self._close_epoch(line, steps)
                self._keep()
            line.advance(1.0)
        with torch.no_grad():
            for name, weights in trained_parameters(self._model).items():
                weights.copy_(self._best[name])
        return self._position

    def _train_epoch(self, line: ProgressLine) -> int:
        """Train for the rest of the epoch or of the time; return the steps of a whole epoch."""
        position, settings, schedule = self._position, self._settings, self._schedule
        examples = self._epoch_examples(position.epoch)
        seed = (settings.seed, position.epoch, _SEED_PART)
        batches = cut_into_batches(examples, settings.batch_size, seed)
        mean_targets = sum(len(e.target_positions) for e in examples) / max(1, len(batches))
        self._model.train()
        began, tokens = schedule.seconds(), position.tokens
        for chosen in batches[position.step :]:
            if position.step and schedule.time_is_over():
                break
            loss = self._step(chosen, mean_targets)
            rate = (position.tokens - tokens) / max(1e-9, schedule.seconds() - began)
            if not position.rows:  # a first estimate: a forward pass costs a third of a step
                per_token = schedule.seconds() / position.tokens
                schedule.expect_validation(per_token * self._validation.tokens / 3)
            line.move(schedule.share_shown(), epoch=position.epoch, loss=loss, rate=rate)
            self._keep_at_times()
        return len(batches)

    def _step(self, chosen: Sequence[Example], mean_targets: float) -> float:
        """Take one step; return the batch's mean loss per target token.

        The gradient is scaled by the batch's number of targets, which varies because batches hold
        sequences of similar length. So every target has the same weight.
        """
        position, settings = self._position, self._settings
        batch = Batch.of(chosen, terminator=self._terminator, device=settings.device)
        loss = self._objective.mean_loss(self._model, batch)
        value = self._finite(loss.item())
        (loss * (batch.targets / mean_targets)).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained_parameters(self._model).values(), _LARGEST_GRADIENT)
        over = self._schedule.share_over(after_step=True)
        for group in self._optimizer.param_groups:
            group["lr"] = settings.learning_rate * learning_rate_factor(position.steps, over)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        position.step += 1
        position.steps += 1
        position.tokens += batch.tokens
        position.loss_sum += value * batch.targets
        position.target_tokens += batch.targets
        return value

    def _close_epoch(self, line: ProgressLine, steps: int) -> None:
        """Validate, add the epoch's row, and copy the weights if they are the best so far."""
        position = self._position
        loss = position.loss_sum / max(1, position.target_tokens)
        validation_loss = self._finite(self._validate(line)) if self._validation else loss
        row = {"epoch": position.epoch, "loss": loss, "validation_loss": validation_loss}
        row["tokens"] = position.tokens
        if position.step < steps:
            row["share"] = position.step / steps
        if position.validated < len(self._validation):
            row["checked"] = position.validated / len(self._validation)
        best = position.best_loss is None or validation_loss < position.best_loss
        if best:
            position.best_epoch, position.best_loss = position.epoch, validation_loss
            self._best = {
                name: weights.detach().to("cpu", copy=True)
                for name, weights in trained_parameters(self._model).items()
            }
        line.say(describe_epoch(row, is_best=best and len(position.rows) > 0))
        position.rows.append(row)
        position.epoch += 1
        position.step, position.loss_sum, position.target_tokens = 0, 0.0, 0
        position.validated, position.validation_loss_sum, position.validation_targets = 0, 0.0, 0
        position.seconds = self._schedule.seconds()

    def _validate(self, line: ProgressLine) -> float:
        """Return the validation loss; its duration is the estimate for the next one."""
        position, schedule = self._position, self._schedule
        if position.last_validation_seconds > _LONG_VALIDATION_S and not position.validated:
            self._keep()
        began, done = schedule.seconds(), position.validated

        def keep() -> None:
            line.advance(schedule.share_shown())
            self._keep_at_times()

        loss = self._validation.measure(
            self._model, position, is_over=schedule.validation_is_over, after_batch=keep
        )
        took = schedule.seconds() - began
        position.validation_seconds += took
        per_batch = took / max(1, position.validated - done)
        position.last_validation_seconds = per_batch * len(self._validation)
        return loss

    def _keep_at_times(self) -> None:
        keeper = self._keeper
        if keeper and self._schedule.seconds() - self._kept_at >= 60 * keeper.minutes:
            self._keep()

    def _finite(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise InvalidInputError(
                f"the loss of epoch {self._position.epoch} is {loss}: training diverged; "
                f"lower --learning-rate ({self._settings.learning_rate:g})"
            )
        return loss

    def _keep(self) -> None:
        if self._keeper is None:
            return
        position = self._position
        position.seconds = self._schedule.seconds()
        tensors = state_tensors(self._model, self._optimizer)
        self._keeper.save(asdict(position), tensors, self._best, position.best_epoch)
        self._kept_at = self._schedule.seconds()
