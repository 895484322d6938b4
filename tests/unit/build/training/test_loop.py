from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from adprior_build.training.examples import EpochExamples, Example
from adprior_build.training.loop import prepare, train
from adprior_build.training.scratch_model import ModelSize, Names, scratch_model
from adprior_build.training.settings import Settings
from adprior_runtime.errors import InvalidInputError

SIZE = ModelSize(
    hidden_size=16,
    intermediate_size=32,
    layers=1,
    attention_heads=2,
    key_value_heads=1,
    vocabulary_size=40,
    max_prompt_tokens=16,
)
SETTINGS = Settings(epochs=30, batch_size=8, learning_rate=3e-2, weight_decay=0.0)
END = 1


def fixed(examples: Sequence[Example]) -> EpochExamples:
    """Return the same examples in every epoch."""
    return lambda _: list(examples)


def lessons(names: Sequence[int], *, follows: int) -> list[Example]:
    """Return sequences of several lengths in which ``name + follows`` comes after ``name``."""
    examples = []
    for place, name in enumerate(names):
        prompt = [2, *([3] * (place % 4)), name]
        examples.append(Example([*prompt, name + follows, END], [len(prompt), len(prompt) + 1]))
    return examples


TAUGHT = lessons(range(10, 18), follows=10)
CONTRARY = lessons(range(10, 18), follows=1)


def fresh_model(seed: int = 0) -> Any:
    prepare(seed, threads=1)
    names = Names(tokens=list(range(10, 20)), log_shares=[-2.3] * 10)
    return scratch_model(SIZE, SIZE.vocabulary_size, names)


def mean_loss(model: Any, examples: Sequence[Example]) -> float:
    """Return the mean negative log-likelihood of the taught tokens, example by example."""
    losses = []
    model.eval()
    for example in examples:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([example.token_ids])).logits[0]
        for position in example.target_positions:
            log_probs = torch.log_softmax(logits[position - 1].double(), dim=-1)
            losses.append(-float(log_probs[example.token_ids[position]]))
    return sum(losses) / len(losses)


def test_the_loss_falls_and_chooses_the_epoch_without_validation_users() -> None:
    rows = train(fresh_model(), fixed(TAUGHT), [], SETTINGS).rows
    assert [row["epoch"] for row in rows] == list(range(30))
    assert rows[-1]["loss"] < rows[0]["loss"] / 2
    assert rows[0]["loss"] > math.log(SIZE.vocabulary_size) / 2
    assert all(row["validation_loss"] == row["loss"] for row in rows)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_start_share_mixes_the_first_and_the_trained_weights(share: float) -> None:
    start, trained, between = fresh_model(), fresh_model(), fresh_model()
    train(trained, fixed(TAUGHT), [], SETTINGS)
    train(between, fixed(TAUGHT), [], SETTINGS, start_share=share)
    ends = trained.state_dict()
    moved = 0.0
    for name, weights in between.state_dict().items():
        first = start.state_dict()[name]
        torch.testing.assert_close(weights, share * first + (1 - share) * ends[name])
        moved += float((first - ends[name]).abs().sum())
    assert moved > 1


def test_the_weights_of_the_best_epoch_remain() -> None:
    model = fresh_model()
    rows = train(model, fixed(TAUGHT), CONTRARY, SETTINGS).rows
    losses = [row["validation_loss"] for row in rows]
    assert losses[-1] > min(losses) + 0.5
    assert mean_loss(model, CONTRARY) == pytest.approx(min(losses), abs=1e-5)


SHORT, LONG = (
    Example([2, 10, 20, END], [2, 3]),
    Example([2, *range(3, 13), 21, END], [11, 12]),
)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
@pytest.mark.parametrize(
    "checks",
    [
        [SHORT, Example([2, 3, 3, 3, 3, 10, 20, END, 4, 11, END], [6, 9]), Example([2, 5], [1])],
        [SHORT, LONG],
        [Example([*SHORT.token_ids, 33, 34], SHORT.target_positions)],
    ],
    ids=["targets only", "padding", "tokens after targets"],
)
def test_the_validation_loss_is_the_mean_over_target_tokens(
    checks: list[Example], batch_size: int
) -> None:
    model = fresh_model()
    settings = replace(SETTINGS, epochs=1, batch_size=batch_size)
    (row,) = train(model, fixed(TAUGHT), checks, settings).rows
    assert row["validation_loss"] == pytest.approx(mean_loss(model, checks), abs=1e-5)


def test_weights_stay_float32_with_bfloat16_products() -> None:
    model = fresh_model()
    rows = train(model, fixed(TAUGHT), TAUGHT, replace(SETTINGS, bf16=True)).rows
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert {weights.dtype for weights in model.state_dict().values()} == {torch.float32}


def test_a_training_that_diverges_is_refused() -> None:
    settings = replace(SETTINGS, learning_rate=1e30)
    with pytest.raises(InvalidInputError, match=r"diverged; lower --learning-rate \(1e\+30\)"):
        train(fresh_model(), fixed(TAUGHT), TAUGHT, settings)


def test_every_epoch_is_drawn() -> None:
    drawn = []

    def growing(number: int) -> list[Example]:
        drawn.append(number)
        return TAUGHT[: number + 1]

    rows = train(fresh_model(), growing, [], replace(SETTINGS, epochs=3, batch_size=1)).rows
    assert len(rows) == 3
    assert drawn[-3:] == [0, 1, 2]


def test_cuda_without_a_device_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(InvalidInputError, match="torch finds no CUDA device; use --device cpu"):
        prepare(0, threads=1, device="cuda")


@pytest.mark.parametrize(("option", "threads"), [(0, 1), (3, 3)])
def test_the_default_is_the_threads_that_the_process_may_use(
    monkeypatch: pytest.MonkeyPatch, option: int, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr("adprior_build.training.checkpoint.available_processors", lambda: 1)
    try:
        prepare(0, threads=option)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_every_target_has_the_same_weight() -> None:
    """The mean gradient of batches with few and many targets is that of one large batch."""
    mixed = [*lessons([10], follows=10), *lessons(range(11, 18), follows=10)]
    gradients = []
    for size in (1, len(mixed)):
        model = fresh_model()
        steps: list[torch.Tensor] = []
        hook = model.lm_head.weight.register_post_accumulate_grad_hook(
            lambda weights, steps=steps: steps.append(weights.grad.clone())
        )
        still = replace(SETTINGS, epochs=1, batch_size=size, learning_rate=1e-12)
        train(model, fixed(mixed), [], still)
        hook.remove()
        gradients.append(torch.stack(steps).mean(dim=0))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-4)


def test_patience_ends_the_training() -> None:
    rows = train(fresh_model(), fixed(TAUGHT), CONTRARY, SETTINGS).rows
    losses = [row["validation_loss"] for row in rows]
    worse = next(e for e in range(2, 30) if min(losses[e - 1 : e + 1]) > min(losses[: e - 1]))
    patient = replace(SETTINGS, patience=2)
    model = fresh_model()
    position = train(model, fixed(TAUGHT), CONTRARY, patient)
    assert position.rows == rows[: worse + 1]
    assert position.best_epoch == worse - 2
    assert mean_loss(model, CONTRARY) == pytest.approx(losses[worse - 2], abs=1e-5)


def ticking(seconds: float) -> Callable[[], float]:
    """Return a clock that advances by ``seconds`` at each call."""
    now = 0.0

    def look() -> float:
        nonlocal now
        now += seconds
        return now

    return look


def test_the_time_limit_ends_a_training_within_an_epoch() -> None:
    timed = replace(SETTINGS, epochs=None, minutes=1.0, batch_size=1)
    position = train(fresh_model(), fixed(TAUGHT), TAUGHT, timed, clock=ticking(0.5))
    assert position.epoch == len(position.rows) > 1
    assert position.steps % len(TAUGHT) != 0
    assert 55 <= position.seconds <= 65
    assert position.rows[-1]["loss"] < position.rows[0]["loss"]


def test_the_first_validation_fits_into_the_time() -> None:
    """A validation token costs a third of a training token."""
    timed = replace(SETTINGS, epochs=None, minutes=1.0, batch_size=1)
    endless = fixed(TAUGHT * 1000)
    steps = []
    for checks in ([], TAUGHT * 15):
        position = train(fresh_model(), endless, checks, timed, clock=ticking(0.1))
        assert position.epoch == 1
        steps.append(position.steps)
    trained, validated = steps[1], 15 * len(TAUGHT)
    assert trained / steps[0] == pytest.approx(1 / (1 + validated / trained / 3), rel=0.03)


def test_the_time_limit_ends_the_first_validation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It may take much longer than estimated: here more than an hour."""
    timed = replace(SETTINGS, epochs=None, minutes=1.0, batch_size=1)
    checks = CONTRARY * 3000
    position = train(fresh_model(), fixed(TAUGHT * 1000), checks, timed, clock=ticking(0.1))
    (row,) = position.rows
    assert 59 <= position.seconds <= 62
    assert position.validation_seconds == pytest.approx(20, abs=2)
    assert row["share"] == pytest.approx(position.steps / 8000)
    assert 0 < row["checked"] < 0.02
    (line,) = capsys.readouterr().out.splitlines()
    start = rf"epoch 0, {row['share']:.0%} of it \(the time was over\): loss .*, validation .*"
    assert re.fullmatch(rf"{start} \(of {row['checked']:.0%} of the users\)", line)


def test_the_first_epoch_is_not_called_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    train(fresh_model(), fixed(TAUGHT), TAUGHT, replace(SETTINGS, epochs=2))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 0: loss ")
    assert "(best)" not in first
    assert second.endswith(" (best)")


def test_an_epoch_is_kept_before_a_long_validation() -> None:
    saved: list[Mapping[str, Any]] = []
    keeper: Any = SimpleNamespace(minutes=1e9, save=lambda position, *_: saved.append(position))
    slow = replace(SETTINGS, epochs=2, batch_size=1)
    clock = ticking(10.0)
    train(fresh_model(), fixed(TAUGHT), CONTRARY, slow, keeper=keeper, clock=clock)
    assert [(at["epoch"], at["step"], at["validated"]) for at in saved] == [
        (0, 8, 0),
        (1, 0, 0),
        (1, 8, 0),
        (2, 0, 0),
    ]


def test_the_first_limit_ends_the_training() -> None:
    for epochs, minutes in ((2, 1000.0), (1000, 0.1)):
        timed = replace(SETTINGS, epochs=epochs, minutes=minutes, batch_size=1)
        rows = train(fresh_model(), fixed(TAUGHT), [], timed, clock=ticking(0.5)).rows
        assert len(rows) <= 2


def test_tokens_are_counted_without_padding() -> None:
    position = train(fresh_model(), fixed(TAUGHT), [], replace(SETTINGS, epochs=2))
    once = sum(len(example.token_ids) for example in TAUGHT)
    assert [row["tokens"] for row in position.rows] == [once, 2 * once]
    assert position.tokens == 2 * once


@pytest.mark.parametrize("option", ["dropout", "label_smoothing", "log_q"])
def test_regularisation_changes_training_but_not_the_validation_loss(option: str) -> None:
    model, plain = fresh_model(), fresh_model()
    settings = replace(SETTINGS, epochs=3)
    more: dict[str, Any] = {option: 0.3}
    changed = train(model, fixed(TAUGHT), CONTRARY, replace(settings, **more), terminator=END)
    ordinary = train(plain, fixed(TAUGHT), CONTRARY, settings)
    assert changed.rows[0]["loss"] != ordinary.rows[0]["loss"]
    assert mean_loss(model, CONTRARY) == pytest.approx(changed.best_loss, abs=1e-5)
