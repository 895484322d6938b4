from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from adprior_build.training.loop import prepare, train
from adprior_build.training.loss import Objective
from adprior_build.training.lower_states import LowerStates
from adprior_build.training.settings import Settings
from adprior_build.training.upper_layers import LayerSplit, freeze_lower_layers
from adprior_build.training.windows import EpochWindows, Window
from adprior_runtime.errors import InvalidInputError
from support.windows import make_window

VOCABULARY = 40
SETTINGS = Settings(epochs=30, batch_size=8, learning_rate=3e-2, weight_decay=0.0)
END = 1


def fixed(windows: Sequence[Window]) -> EpochWindows:
    """Return the same windows in every epoch."""
    return lambda _: list(windows)


def lessons(names: Sequence[int], *, follows: int) -> list[Window]:
    """Return sequences of several lengths in which ``name + follows`` comes after ``name``."""
    windows = []
    for place, name in enumerate(names):
        prompt = [2, *([3] * (place % 4)), name]
        targets = [len(prompt), len(prompt) + 1]
        new = targets if place % 2 else []
        windows.append(make_window([*prompt, name + follows, END], targets, new, end=END))
    return windows


TAUGHT = lessons(range(10, 18), follows=10)
CONTRARY = lessons(range(10, 18), follows=1)


def fresh_model(seed: int = 0, layers: int = 1) -> Any:
    prepare(seed, threads=1)
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=VOCABULARY,
        max_position_embeddings=32,
        initializer_range=0.1,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def nats_a_name(model: Any, windows: Sequence[Window]) -> float:
    """Return the negative log-likelihood of the taught tokens a name, window by window."""
    total = 0.0
    model.eval()
    for window in windows:
        ids = torch.from_numpy(window.token_ids).long()
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0]
        log_probs = torch.log_softmax(logits.double(), dim=-1)
        total -= sum(float(log_probs[at - 1, ids[at]]) for at in window.targets.tolist())
    return total / sum(window.names for window in windows)


def test_the_loss_falls_and_chooses_the_epoch_without_validation_users() -> None:
    rows = train(fresh_model(), fixed(TAUGHT), [], SETTINGS).rows
    assert [row["epoch"] for row in rows] == list(range(30))
    assert rows[-1]["loss"] < rows[0]["loss"] / 2
    assert rows[0]["loss"] > math.log(VOCABULARY) / 2
    assert all(row["validation_loss"] == row["loss"] for row in rows)


def test_the_weights_of_the_best_epoch_remain() -> None:
    model = fresh_model()
    rows = train(model, fixed(TAUGHT), CONTRARY, SETTINGS).rows
    losses = [row["validation_loss"] for row in rows]
    assert losses[-1] > min(losses) + 0.5
    assert nats_a_name(model, CONTRARY) == pytest.approx(min(losses), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_validation_loss_is_in_nats_a_name(batch_size: int) -> None:
    short = make_window([2, 10, 20, END], [2, 3], [2, 3], end=END)
    long = make_window([2, *range(3, 13), 21, END], [11, 12], end=END)
    settings = replace(SETTINGS, epochs=1, batch_size=batch_size)
    model = fresh_model()
    (row,) = train(model, fixed(TAUGHT), [short, long, long], settings).rows
    assert row["validation_loss"] == pytest.approx(nats_a_name(model, [short, long, long]))
    assert row["validation_new"] == pytest.approx(nats_a_name(model, [short]))
    assert row["validation_seen"] == pytest.approx(nats_a_name(model, [long]))


def test_the_upper_layers_train_on_the_lower_ones_output_as_on_the_whole_model(
    tmp_path: Path,
) -> None:
    whole, split = fresh_model(layers=3), fresh_model(layers=3)
    freeze_lower_layers(whole, 1)
    rows = train(whole, fixed(TAUGHT), CONTRARY, SETTINGS).rows
    freeze_lower_layers(split, 1)
    layers = LayerSplit(split, 1)
    lower = LowerStates(tmp_path, [*TAUGHT, *CONTRARY], layers.run_lower, hidden=16)
    lower.open("a")
    loss = Objective(model=split, lower=lower)
    found = train(split, fixed(TAUGHT), CONTRARY, SETTINGS, split=layers, objective=loss).rows
    for before, after in zip(rows[:5], found, strict=False):
        assert after == pytest.approx(before, rel=2e-3)  # float16
    assert nats_a_name(split, CONTRARY) == pytest.approx(
        min(row["validation_loss"] for row in found), rel=2e-3
    )


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

    def growing(number: int) -> list[Window]:
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
    assert nats_a_name(model, CONTRARY) == pytest.approx(losses[worse - 2], abs=1e-5)


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
    start = rf"epoch 0, {row['share']:.0%} of it \(the time was over\): .*, validation .*"
    assert re.fullmatch(rf"{start} \(of {row['checked']:.0%} of the users\)", line)


def test_the_first_epoch_is_not_called_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    train(fresh_model(), fixed(TAUGHT), TAUGHT, replace(SETTINGS, epochs=2))
    first, second = capsys.readouterr().out.splitlines()
    assert re.match(r"epoch 0: \d+\.\d+ nats a name, validation ", first)
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
    once = sum(len(window.token_ids) for window in TAUGHT)
    assert [row["tokens"] for row in position.rows] == [once, 2 * once]
    assert position.tokens == 2 * once
