from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adprior_build.training.optimizer import (
    learning_rate_factor,
    make_optimizer,
    restore_tensors,
    state_tensors,
    trained_parameters,
)
from adprior_runtime.errors import InvalidInputError


def network(seed: int, width: int = 3) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.LayerNorm(width))


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.rand(4, 2)).square().sum().backward()
    optimizer.step()


def test_only_matrices_decay() -> None:
    model = network(0)
    optimizer = make_optimizer(model, 0.1, 0.2)
    found = {
        id(weights): (group["weight_decay"], group["lr"], group["betas"])
        for group in optimizer.param_groups
        for weights in group["params"]
    }
    assert {name: found[id(weights)] for name, weights in model.named_parameters()} == {
        "0.weight": (0.2, 0.1, (0.9, 0.95)),
        "0.bias": (0.0, 0.1, (0.9, 0.95)),
        "1.weight": (0.0, 0.1, (0.9, 0.95)),
        "1.bias": (0.0, 0.1, (0.9, 0.95)),
    }


def test_frozen_parameters_are_not_trained() -> None:
    model = network(0)
    model[0].requires_grad_(requires_grad=False)  # type: ignore[index]
    assert set(trained_parameters(model)) == {"1.weight", "1.bias"}
    optimizer = make_optimizer(model, 0.1, 0.2)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0]


def test_the_rate_rises_for_a_tenth_or_a_hundred_steps() -> None:
    short = [learning_rate_factor(step, (step + 1) / 40) for step in range(40)]
    assert short[:4] == pytest.approx(
        [0.25, 0.5, 0.75, 0.05 + 0.475 * (1 + math.cos(math.pi / 10))]
    )
    assert short[-1] == pytest.approx(0.05)
    long = [learning_rate_factor(step, (step + 1) / 10**5) for step in range(10**5)]
    assert long[:99] == pytest.approx([(step + 1) / 100 for step in range(99)], abs=1e-4)
    assert long[50_000] == pytest.approx(0.525, abs=1e-3)


@given(st.integers(0, 10**6), st.floats(0, 2))
def test_the_rate_is_a_share_and_falls_after_the_warm_up(step: int, progress: float) -> None:
    factor = learning_rate_factor(step, progress)
    assert 0 < factor <= 1
    if progress >= 0.1:
        assert learning_rate_factor(step, progress + 0.1) <= factor


def test_a_restored_training_takes_the_same_steps() -> None:
    model = network(1)
    optimizer = make_optimizer(model, 0.1, 0.2)
    for _ in range(3):
        step(model, optimizer)
    kept = {name: value.clone() for name, value in state_tensors(model, optimizer).items()}
    step(model, optimizer)
    step(model, optimizer)
    other = network(2)
    again = make_optimizer(other, 0.1, 0.2)
    restore_tensors(other, again, kept)
    step(other, again)
    step(other, again)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_state_before_the_first_step_has_no_moments() -> None:
    model = network(1)
    optimizer = make_optimizer(model, 0.1, 0.2)
    tensors = {name: value.clone() for name, value in state_tensors(model, optimizer).items()}
    restore_tensors(model, optimizer, tensors)
    step(model, optimizer)
    assert optimizer.state[model[0].weight]["step"] == 1  # type: ignore[index]


def test_a_state_of_another_model_is_refused() -> None:
    model = network(1)
    tensors = state_tensors(model, make_optimizer(model, 0.1, 0.2))
    other = network(1, width=4)
    with pytest.raises(InvalidInputError, match="another model"):
        restore_tensors(other, make_optimizer(other, 0.1, 0.2), tensors)
