from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from adprior_build.commands.train import EXAMPLE, add_arguments, check_options
from adprior_build.training.settings import RESUME_FREELY, Settings, work_directory
from adprior_runtime.errors import InvalidInputError

REQUIRED = ["--events", "E", "--columns", "C", "--catalogue", "A", "--output", "out/model"]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    add_arguments(made)
    return made


def parsed(*options: str) -> argparse.Namespace:
    return parser().parse_args([*REQUIRED, "--from", "start", *options])


def test_the_loops_settings_are_the_options() -> None:
    found = Settings.of(
        parsed("--batch-size", "4", "--learning-rate", "2e-4", "--weight-decay", "0.2",
               "--precision", "bf16", "--patience", "3", "--seed", "7", "--device", "cuda")
    )  # fmt: skip
    assert found == Settings(
        epochs=10, batch_size=4, learning_rate=2e-4, weight_decay=0.2, bf16=True, patience=3,
        seed=7, device="cuda",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "epochs", "minutes"),
    [
        ([], 10, None),
        (["--epochs", "3"], 3, None),
        (["--minutes", "1.5"], None, 1.5),
        (["--epochs", "3", "--minutes", "1.5"], 3, 1.5),
    ],
)
def test_without_a_limit_there_are_ten_epochs(
    options: list[str], epochs: int | None, minutes: float | None
) -> None:
    settings = Settings.of(parsed(*options))
    assert (settings.epochs, settings.minutes) == (epochs, minutes)


def test_settings_without_an_end_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="neither epochs nor minutes"):
        Settings(batch_size=1, learning_rate=1, weight_decay=0)


def test_the_state_is_kept_beside_the_output() -> None:
    assert work_directory(parsed()) == Path("out/model.partial").absolute()
    assert work_directory(parsed("--work", "w")) == Path("w")


@pytest.mark.parametrize(
    ("options", "learning_rate"),
    [([], 5e-5), (["--lora-rank", "2"], 5e-4), (["--learning-rate", "0.1"], 0.1)],
)
def test_the_usual_learning_rate_goes_with_what_is_trained(
    options: list[str], learning_rate: float
) -> None:
    assert Settings.of(parsed(*options)).learning_rate == learning_rate


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lora-alpha", "2"], "need --lora-rank"),
        (["--dropout", "0.1"], "need --lora-rank"),
        (["--merge"], "need --lora-rank"),
        (["--patience", "1", "--validation-share", "0"], "needs validation users"),
        (["--work", "out/model"], "must not contain each other"),
        (["--work", "out/model/state"], "must not contain each other"),
        (["--work", "out"], "must not contain each other"),
    ],
)
def test_contradicting_options_are_refused(options: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        check_options(parsed(*options))


@pytest.mark.parametrize(
    "options", [["--lora-rank", "2", "--lora-alpha", "3", "--merge"], ["--patience", "1"]]
)
def test_options_that_fit_are_accepted(options: list[str]) -> None:
    check_options(parsed(*options))


def test_the_help_shows_groups_and_examples() -> None:
    assert set(vars(parsed())) > RESUME_FREELY
    assert "--lora-rank" in EXAMPLE
    text = parser().format_help()
    layers = "LoRA, and which layers are trained:"
    for group in ("data:", "model:", "optimisation:", layers, "machine and resuming:"):
        assert f"\n{group}" in text
