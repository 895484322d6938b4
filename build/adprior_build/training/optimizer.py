"""AdamW, its learning rate over time, and the tensors that a killed training resumes from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import torch

from adprior_runtime.errors import InvalidInputError

_BETAS: Final = (0.9, 0.95)
"""The usual values for language models, such as Llama's."""
_WARM_UP_STEPS: Final = 100
_WARM_UP_SHARE: Final = 0.1
_SMALLEST_FACTOR: Final = 0.05
_MOMENTS: Final = ("exp_avg", "exp_avg_sq", "step")


def trained_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that training changes, by name; tied parameters once."""
    return {name: weights for name, weights in model.named_parameters() if weights.requires_grad}


def make_optimizer(model: Any, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW over a model's trained parameters; norms and biases do not decay."""
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for weights in trained_parameters(model).values():
        groups[weights.ndim >= 2].append(weights)
    return torch.optim.AdamW(
        [
            {"params": groups[decays], "weight_decay": weight_decay if decays else 0.0}
            for decays in (True, False)
            if groups[decays]
        ],
        lr=learning_rate,
        betas=_BETAS,
        fused=True,  # one kernel for all weights: LoRA has many small ones
    )


def learning_rate_factor(step: int, progress: float) -> float:
    """Return the factor on the peak learning rate: a linear warm-up, then a cosine down to 0.05.

    The warm-up takes 100 steps, or a tenth of the training if that is shorter. transformers' own
    schedules count steps only; a training may also end by time.

    Args:
        step: Number of earlier steps.
        progress: Share of the training that is over after this step, by steps or by time.
    """
    warm_up = max((step + 1) / _WARM_UP_STEPS, progress / _WARM_UP_SHARE)
    wave = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return min(1.0, warm_up, _SMALLEST_FACTOR + (1 - _SMALLEST_FACTOR) * wave)


def state_tensors(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the trained weights, the optimizer's moments and the random generators' states."""
    tensors = {"random/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    for name, weights in trained_parameters(model).items():
        tensors[f"weights/{name}"] = weights.detach()
        for moment, value in optimizer.state[weights].items():
            tensors[f"{moment}/{name}"] = value
    return {name: value.contiguous() for name, value in tensors.items()}


def restore_tensors(
    model: Any, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Load what `state_tensors` returned.

    Raises:
        InvalidInputError: The tensors belong to another model.
    """
    parameters = trained_parameters(model)
    known = {name: weights.shape for name, weights in parameters.items()}
    found = {
        name.removeprefix("weights/"): value.shape
        for name, value in tensors.items()
        if name.startswith("weights/")
    }
    if known != found:
        raise InvalidInputError("the training's state is of another model")
    with torch.no_grad():
        for name, weights in parameters.items():
            weights.copy_(tensors[f"weights/{name}"])
            optimizer.state[weights] = {
                moment: value.clone().to("cpu" if moment == "step" else weights.device)
                for moment in _MOMENTS
                if (value := tensors.get(f"{moment}/{name}")) is not None
            }
    torch.set_rng_state(tensors["random/cpu"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])
