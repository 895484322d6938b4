"""The tunable settings of each model: instances, batches, delays, threads, and their ranges.

A tuning file (`adprior_build.repository.server_tuning`) sets these values, `model_configs` renders
them into the embedded server's configurations, and `read_scaling` reads them back.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Final

from adprior_runtime.contract import (
    LLM_ENGINE,
    MAX_BATCH_SIZE,
    MODEL_NAMES,
    THREADS_PARAMETER,
    Target,
)
from adprior_runtime.repository.model_specs import Scaling, model

TUNED_MODELS: Final = tuple(name for name in MODEL_NAMES if model(name, Target.CPU).backend)
"""The embedded server's Python models; an ensemble follows from its steps."""

RANGES: Final = {
    "instances": (1, 256),
    "max_batch_size": (1, MAX_BATCH_SIZE),
    "max_queue_delay_us": (0, 1_000_000),
    "threads": (0, 1024),
}
"""The least and the largest value of each field of `Scaling`."""


def read_scaling(name: str, config: Any) -> Scaling:
    """Return the scaling in a ``ModelConfig``; the contract's value where one is out of range.

    Args:
        name: The model's.
        config: The message, from a server or a file.
    """
    parameters = {key: item.string_value for key, item in config.parameters.items()}
    threads = parameters.get(THREADS_PARAMETER, "0")
    found = {
        "instances": sum(group.count for group in config.instance_group),
        "max_batch_size": config.max_batch_size,
        "max_queue_delay_us": config.dynamic_batching.max_queue_delay_microseconds,
        "threads": int(threads) if threads.isdecimal() else -1,
    }
    sound = {key: found[key] for key in tunable_fields(name) if is_in_range(key, found[key])}
    return replace(model(name, Target.CPU).scaling, **sound)


def tunable_fields(name: str) -> list[str]:
    """Return the fields of `Scaling` that apply to a model."""
    keys = [item.name for item in fields(Scaling)]
    if name != LLM_ENGINE:
        keys.remove("threads")
    if not model(name, Target.CPU).is_queued:
        keys.remove("max_queue_delay_us")
    return keys


def is_in_range(key: str, value: Any) -> bool:
    """Whether a value is a whole number that the field takes."""
    least, largest = RANGES[key]
    return type(value) is int and least <= value <= largest
