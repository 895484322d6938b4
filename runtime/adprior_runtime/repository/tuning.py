"""The tuning of a server: instances, threads and batches of each Python model.

A tuning file is TOML, with a table for each model that differs from the contract::

    [llm_engine]
    instances = 2            # processes
    threads = 1              # of one forward pass; 0 shares the CPUs among instances
    max_batch_size = 1       # requests answered together
    max_queue_delay_us = 0   # longest wait for other requests to share a batch

``adprior bench server --sweep --tuning-output FILE`` writes one. ``adprior build --tuning FILE``
renders it into the exact search's configurations, and `read_tuning` reads it back from them. Where
the file does not set a value, each configuration keeps its own.
"""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from adprior_runtime.contract import (
    LLM_ENGINE,
    MODEL_NAMES,
    THREADS_PARAMETER,
    Target,
)
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.repository.model_specs import ModelTuning, model

Tuning: TypeAlias = dict[str, ModelTuning]
"""The tuning of each model, by the model's name."""

TUNED_MODELS: Final = tuple(name for name in MODEL_NAMES if model(name, Target.CPU).backend)
"""The exact search's Python models; an ensemble follows from its steps."""

_RANGES: Final = {
    "instances": (1, 256),
    "max_batch_size": (1, 64),
    "max_queue_delay_us": (0, 1_000_000),
    "threads": (0, 1024),
}
"""The smallest and the largest value of each field of `ModelTuning`."""


def load_tuning(path: Path, target: Target = Target.CPU) -> Tuning:
    """Read a tuning file.

    Args:
        path: The file.
        target: The configuration that gives the values that the file does not set.

    Raises:
        InvalidInputError: The file is not TOML, has an unknown name, or a value out of range.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path}: not a tuning file: {error}") from error
    if unknown := sorted(document.keys() - set(TUNED_MODELS)):
        raise InvalidInputError(
            f"{path}: unknown {', '.join(unknown)}; expected tables of {', '.join(TUNED_MODELS)}"
        )
    return {
        name: replace(model(name, target).tuning, **_read_table(f"{path}: [{name}]", name, table))
        for name, table in document.items()
    }


def format_tuning(tuning: Tuning, remarks: str = "") -> str:
    """Return the text of a tuning file, with the lines of ``remarks`` as comments above it."""
    lines = [f"# {line}".rstrip() for line in remarks.splitlines()]
    for name, chosen in tuning.items():
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {getattr(chosen, key)}" for key in _tunable_fields(name)]
    return "\n".join(lines).lstrip("\n") + "\n"


def read_tuning(name: str, config: Any, target: Target = Target.CPU) -> ModelTuning:
    """Return the tuning in a ``ModelConfig``, with the contract's value where one is out of range.

    Args:
        name: The model's.
        config: The message, from a server or a file.
        target: The configuration that it is.
    """
    parameters = {key: item.string_value for key, item in config.parameters.items()}
    threads = parameters.get(THREADS_PARAMETER, "0")
    found = {
        "instances": sum(group.count for group in config.instance_group),
        "max_batch_size": config.max_batch_size,
        "max_queue_delay_us": config.dynamic_batching.max_queue_delay_microseconds,
        "threads": int(threads) if threads.isdecimal() else -1,
    }
    sound = {key: found[key] for key in _tunable_fields(name) if _is_in_range(key, found[key])}
    return replace(model(name, target).tuning, **sound)


def _tunable_fields(name: str) -> list[str]:
    """Return the fields of `ModelTuning` that apply to a model."""
    keys = [item.name for item in fields(ModelTuning)]
    if name != LLM_ENGINE:
        keys.remove("threads")
    if not model(name, Target.CPU).is_queued:
        keys.remove("max_queue_delay_us")
    return keys


def _is_in_range(key: str, value: Any) -> bool:
    """Whether a value is a whole number that the field takes."""
    least, largest = _RANGES[key]
    return type(value) is int and least <= value <= largest


def _read_table(place: str, name: str, table: Any) -> dict[str, int]:
    """Return the settings of a model's table."""
    if not isinstance(table, dict):
        raise InvalidInputError(f"{place}: found {table!r}, expected a table")
    known = _tunable_fields(name)
    if unknown := sorted(table.keys() - set(known)):
        raise InvalidInputError(
            f"{place}: unknown {', '.join(unknown)}; expected {', '.join(known)}"
        )
    for key, value in table.items():
        if not _is_in_range(key, value):
            least, largest = _RANGES[key]
            raise InvalidInputError(
                f"{place}: {key} is {value!r}, expected a whole number, {least} to {largest}"
            )
    return table
