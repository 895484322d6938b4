"""The optimisation loop: batches, the best epoch kept, and a state to go on from after a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from transformers.utils import logging

from adprior_build.training.batches import EpochSource, cut_into_batches
from adprior_build.training.checkpoint import set_torch_threads
from adprior_build.training.dropout import dropout
from adprior_build.training.examples import Example
from adprior_build.training.loss import Batch, Objective, log_start_shares
from adprior_build.training.optimizer import (
    learning_rate_factor,
    make_optimizer,
    restore_tensors,
    state_tensors,
    trained_parameters,
)
from adprior_build.training.position import Position, Schedule
from adprior_build.training.progress_line import ProgressLine, describe_epoch
from adprior_build.training.settings import Settings
from adprior_build.training.state import KeptState, StateKeeper
from adprior_build.training.validation import Validation
from adprior_runtime.errors import InvalidInputError

_MOST_GRADIENT = 1.0
_WORTH_KEEPING_S = 5.0
"""A look at the validation users that takes longer is not begun with an epoch unkept."""
_ORDER_OF_BATCHES = 1
"""Keeps the draws of the batches' order apart from a source's own, which may use the same seed."""


def prepare(seed: int, threads: int, device: str = "cpu") -> None:
    """Fix the seed and the number of threads (0: the processors that this process may use).

    Raises:
        InvalidInputError: There is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError("--device cuda: torch finds no CUDA device; use --device cpu")
    torch.manual_seed(seed)
    logging.disable_progress_bar()  # of transformers; ours tells more
    set_torch_threads(threads)


def train(
    model: Any,
    source: EpochSource,
    validation: Sequence[Example],
    settings: Settings,
    *,
    terminator: int | None = None,
    start_share: float = 0.0,
    keeper: StateKeeper | None = None,
    kept: KeptState | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Position:
    """Train ``model`` in place and leave it, on the CPU, at the epoch of least validation loss.

    With a ``start_share``, between there and where it began, as in WiSE-FT (Wortsman et al. 2022,
    "Robust fine-tuning of zero-shot models", arXiv 2109.01903).

    Args:
        model: A causal language model; what of it requires no gradient stays as it is.
        source: Of the examples; in a training that goes on, the same as in the one killed.
        validation: Examples that choose the epoch; without any, the training loss does.
        settings: How.
        terminator: The token that ends a name.
        start_share: Share of the first weights in the last ones.
        keeper: Where the state is kept after every epoch and every few minutes.
        kept: The state to go on from.
        clock: In seconds.

    Returns:
        Where the training ended.

    Raises:
        InvalidInputError: The training diverged, or its state cannot be kept.
    """
    model.to(settings.device)
    start = {name: w.detach().clone() for name, w in trained_parameters(model).items()}
    with dropout(model, settings.dropout):
        run = _Run(model, source, validation, settings, terminator, keeper, kept, clock)
        position = run.finish()
    with torch.no_grad():
        for name, weights in trained_parameters(model).items():
            weights.lerp_(start[name], start_share)
    model.to("cpu").eval()
    return position


class _Run:
    """A training under way."""

    def __init__(
        self,
        model: Any,
        source: EpochSource,
        validation: Sequence[Example],
        settings: Settings,
        terminator: int | None,
        keeper: StateKeeper | None,
        kept: KeptState | None,
        clock: Callable[[], float],
    ) -> None:
        self._model, self._source, self._settings = model, source, settings
        self._terminator, self._keeper = terminator, keeper
        self._optimizer = make_optimizer(model, settings.learning_rate, settings.weight_decay)
        first = source.epoch(0)
        adjustment = None
        if settings.log_q:
            vocabulary = model.get_output_embeddings().weight.shape[0]
            shares = log_start_shares(first, vocabulary, terminator)
            adjustment = settings.log_q * shares.to(settings.device)
        self._taught = Objective(
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
        """Train to the end and take the best epoch's weights."""
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
        """Train for the rest of an epoch, or of the time; return the steps of a whole epoch."""
        position, settings, schedule = self._position, self._settings, self._schedule
        examples = self._source.epoch(position.epoch)
        seed = (settings.seed, position.epoch, _ORDER_OF_BATCHES)
        batches = cut_into_batches(examples, settings.batch_size, seed)
        mean_targets = sum(len(e.target_positions) for e in examples) / max(1, len(batches))
        self._model.train()
        began, tokens = schedule.seconds(), position.tokens
        for chosen in batches[position.step :]:
            if position.step and schedule.time_is_over():
                break
            loss = self._step(chosen, mean_targets)
            rate = (position.tokens - tokens) / max(1e-9, schedule.seconds() - began)
            if not position.rows:  # not measured yet: reading costs a third of learning
                per_token = schedule.seconds() / position.tokens
                schedule.expect_check(per_token * self._validation.tokens / 3)
            line.move(schedule.share_shown(), epoch=position.epoch, loss=loss, rate=rate)
            self._keep_at_times()
        return len(batches)

    def _step(self, chosen: Sequence[Example], mean_targets: float) -> float:
        """Take one step; return the batch's mean loss of a target token.

        A batch's gradient is in proportion to its targets: batches of like length have few or many,
        and every target shall weigh the same, as it does where lengths are mixed.
        """
        position, settings = self._position, self._settings
        batch = Batch.of(chosen, terminator=self._terminator, device=settings.device)
        loss = self._taught.mean_loss(self._model, batch)
        value = self._finite(loss.item())
        (loss * (batch.targets / mean_targets)).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained_parameters(self._model).values(), _MOST_GRADIENT)
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
        """Look at the validation users; remember the weights where they are the best so far."""
        position = self._position
        loss = position.loss_sum / max(1, position.target_tokens)
        checked = self._finite(self._look(line)) if self._validation else loss
        row = {"epoch": position.epoch, "loss": loss, "validation_loss": checked}
        row["tokens"] = position.tokens
        if position.step < steps:
            row["share"] = position.step / steps
        if position.checked < len(self._validation):
            row["checked"] = position.checked / len(self._validation)
        best = position.best_loss is None or checked < position.best_loss
        if best:
            position.best_epoch, position.best_loss = position.epoch, checked
            self._best = {
                name: weights.detach().to("cpu", copy=True)
                for name, weights in trained_parameters(self._model).items()
            }
        line.say(describe_epoch(row, is_best=best and len(position.rows) > 0))
        position.rows.append(row)
        position.epoch += 1
        position.step, position.loss_sum, position.target_tokens = 0, 0.0, 0
        position.checked, position.check_loss_sum, position.check_targets = 0, 0.0, 0
        position.seconds = self._schedule.seconds()

    def _look(self, line: ProgressLine) -> float:
        """Return the validation loss; how long it took tells how long the next will."""
        position, schedule = self._position, self._schedule
        if position.check_seconds > _WORTH_KEEPING_S and not position.checked:
            self._keep()
        began, done = schedule.seconds(), position.checked

        def keep() -> None:
            line.advance(schedule.share_shown())
            self._keep_at_times()

        loss = self._validation.look(
            self._model, position, is_over=schedule.check_is_over, keep=keep
        )
        took = schedule.seconds() - began
        position.checks_seconds += took
        position.check_seconds = took / max(1, position.checked - done) * len(self._validation)
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
