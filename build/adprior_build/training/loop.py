"""The training loop: batches, steps, the best epoch's weights, and the state kept on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any, Final

import torch
from transformers.utils import logging

from adprior_build.training.batches import cut_into_batches
from adprior_build.training.checkpoint import set_torch_threads
from adprior_build.training.loss import Objective, Tally
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
from adprior_build.training.upper_layers import LayerSplit
from adprior_build.training.validation import Validation
from adprior_build.training.windows import EpochWindows, Window
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
    epoch_windows: EpochWindows,
    validation: Sequence[Window],
    settings: Settings,
    *,
    split: LayerSplit | None = None,
    objective: Objective | None = None,
    keeper: StateKeeper | None = None,
    kept: KeptState | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Position:
    """Train ``model`` in place; leave it on the CPU with the weights of the best epoch.

    Args:
        model: A causal language model; parameters that require no gradient stay as they are.
        epoch_windows: Returns an epoch's windows; a resumed training needs the same ones.
        validation: Windows that choose the best epoch; without any, the training loss does.
        settings: The loop's settings.
        split: The model's layers, if only the upper ones are trained.
        objective: The loss of ``model``; by default that of names.
        keeper: Keeps the state after every epoch and every few minutes.
        kept: The state to resume from.
        clock: Returns seconds.

    Returns:
        The final position.

    Raises:
        InvalidInputError: The training diverged, or its state cannot be kept.
    """
    model.to(settings.device)
    with nullcontext() if split is None else split.only_upper():
        loss = objective or Objective(model=model, bf16=settings.bf16, device=settings.device)
        checks = Validation(validation, settings)
        position = _Run(loss, epoch_windows, checks, settings, keeper, kept, clock).finish()
    model.to("cpu").eval()
    return position


class _Run:
    def __init__(
        self,
        objective: Objective,
        epoch_windows: EpochWindows,
        validation: Validation,
        settings: Settings,
        keeper: StateKeeper | None,
        kept: KeptState | None,
        clock: Callable[[], float],
    ) -> None:
        self._objective, self._model = objective, objective.model
        self._epoch_windows, self._settings, self._keeper = epoch_windows, settings, keeper
        self._optimizer = make_optimizer(self._model, settings.learning_rate, settings.weight_decay)
        self._validation = validation
        self._position = Position()
        self._best: dict[str, torch.Tensor] = {}
        if kept is not None:
            self._position = Position.of(kept.position)
            self._position.resumed += 1
            self._best = dict(kept.best)
            restore_tensors(self._model, self._optimizer, kept.tensors)
        steps = -(-len(epoch_windows(0)) // settings.batch_size)
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
        windows = self._epoch_windows(position.epoch)
        seed = (settings.seed, position.epoch, _SEED_PART)
        batches = cut_into_batches(windows, settings.batch_size, seed)
        mean_targets = sum(len(w.targets) for w in windows) / max(1, len(batches))
        self._model.train()
        began, tokens, names = schedule.seconds(), position.tokens, position.trained.names
        for chosen in batches[position.step :]:
            if position.step and schedule.time_is_over():
                break
            nats = self._step(chosen, mean_targets)
            seconds = max(1e-9, schedule.seconds() - began)
            if not position.rows:  # a first estimate: a forward pass costs a third of a step
                per_token = schedule.seconds() / position.tokens
                schedule.expect_validation(per_token * self._validation.tokens / 3)
            line.move(
                schedule.share_shown(),
                epoch=position.epoch,
                nats=nats,
                tokens=(position.tokens - tokens) / seconds,
                names=(position.trained.names - names) / seconds,
            )
            self._keep_at_times()
        return len(batches)

    def _step(self, chosen: Sequence[Window], mean_targets: float) -> float:
        """Take one step; return the batch's loss in nats a name.

        The gradient is scaled by the mean number of targets of a batch, not by this batch's, which
        varies. So every target has the same weight.
        """
        position, settings = self._position, self._settings
        nats, batch = self._objective.nats(chosen)
        tally = Tally()
        tally.add(nats.detach(), batch)
        self._finite(tally.nats + tally.interest_nats)
        (nats.sum() / mean_targets).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained_parameters(self._model).values(), _LARGEST_GRADIENT)
        over = self._schedule.share_over(after_step=True)
        for group in self._optimizer.param_groups:
            group["lr"] = settings.learning_rate * learning_rate_factor(position.steps, over)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        position.step += 1
        position.steps += 1
        position.tokens += batch.tokens
        position.trained.merge(tally)
        position.curve.add(tally.nats, tally.names)
        return tally.per_name

    def _close_epoch(self, line: ProgressLine, steps: int) -> None:
        """Validate, add the epoch's row, and copy the weights if they are the best so far."""
        position = self._position
        loss = position.trained.per_name
        checked = position.checked
        if self._validation:
            self._validate(line)
        validation_loss = self._finite(checked.per_name) if self._validation else loss
        row = {"epoch": position.epoch, "loss": loss, "validation_loss": validation_loss}
        row |= {f"validation_{kind}": nats for kind, nats in checked.by_kind().items()}
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
        position.step, position.trained = 0, Tally()
        position.validated, position.checked = 0, Tally()
        position.seconds = self._schedule.seconds()

    def _validate(self, line: ProgressLine) -> None:
        """Measure the validation loss; its duration is the estimate for the next one."""
        position, schedule = self._position, self._schedule
        if position.last_validation_seconds > _LONG_VALIDATION_S and not position.validated:
            self._keep()
        began, done = schedule.seconds(), position.validated

        def keep() -> None:
            line.advance(schedule.share_shown())
            self._keep_at_times()

        self._validation.measure(
            self._objective, position, is_over=schedule.validation_is_over, after_batch=keep
        )
        took = schedule.seconds() - began
        position.validation_seconds += took
        per_batch = took / max(1, position.validated - done)
        position.last_validation_seconds = per_batch * len(self._validation)

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
