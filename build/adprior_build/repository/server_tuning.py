"""A tuning file: how many of each Python model a machine runs, and how they take requests.

TOML, a table for each model that is not as the contract has it::

    [llm_engine]
    instances = 2            # processes
    threads = 1              # of one forward pass; 0 shares the CPUs among instances
    max_batch_size = 1       # requests answered together
    max_queue_delay_us = 0   # how long one may wait for others to share its batch

``adprior bench server --sweep --tuning-output FILE`` writes one, ``adprior build --tuning FILE``
renders it into the embedded server's configurations, and `read_scaling` is the inverse of that.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from adprior_runtime.contract import (
    LLM_ENGINE,
    MAX_BATCH_SIZE,
    MODEL_NAMES,
    THREADS_PARAMETER,
    Scaling,
    Target,
    model,
)
from adprior_runtime.errors import InvalidInputError

Tuning = Mapping[str, Scaling]
"""By the model's name."""

TUNED_MODELS: Final = tuple(name for name in MODEL_NAMES if model(name, Target.CPU).backend)
"""What can be tuned: the embedded server's Python models; an ensemble follows from its steps."""

_RANGES: Final = {
    "instances": (1, 256),
    "max_batch_size": (1, MAX_BATCH_SIZE),
    "max_queue_delay_us": (0, 1_000_000),
    "threads": (0, 1024),
}


def load_tuning(path: Path) -> dict[str, Scaling]:
    """Read a tuning file.

    Raises:
        InvalidInputError: It is none, or has an unknown model or key, or a value out of range.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path}: not a tuning file: {error}") from error
    if unknown := sorted(document.keys() - set(TUNED_MODELS)):
        raise InvalidInputError(
            f"{path}: unknown {', '.join(unknown)}; expected tables of {', '.join(TUNED_MODELS)}"
        )
    return {name: _read_table(f"{path}: [{name}]", name, table) for name, table in document.items()}


def format_tuning(tuning: Tuning, remarks: str = "") -> str:
    """Return the text of a tuning file.

    Args:
        tuning: What it says.
        remarks: Lines to put above it, as comments.
    """
    lines = [f"# {line}".rstrip() for line in remarks.splitlines()]
    for name, scaling in tuning.items():
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {getattr(scaling, key)}" for key in _keys(name)]
    return "\n".join(lines).lstrip("\n") + "\n"


def read_scaling(name: str, config: Any) -> Scaling:
    """Return what a model's ``ModelConfig`` says of its scaling; the contract's where it cannot be.

    Args:
        name: The model's.
        config: The message, as any server or file gives it.
    """
    parameters = {key: item.string_value for key, item in config.parameters.items()}
    threads = parameters.get(THREADS_PARAMETER, "0")
    found = {
        "instances": sum(group.count for group in config.instance_group),
        "max_batch_size": config.max_batch_size,
        "max_queue_delay_us": config.dynamic_batching.max_queue_delay_microseconds,
        "threads": int(threads) if threads.isdecimal() else -1,
    }
    sound = {key: found[key] for key in _keys(name) if _fits(key, found[key])}
    return replace(model(name, Target.CPU).scaling, **sound)


def _read_table(place: str, name: str, table: Any) -> Scaling:
    if not isinstance(table, dict):
        raise InvalidInputError(f"{place}: found {table!r}, expected a table")
    known = _keys(name)
    if unknown := sorted(table.keys() - set(known)):
        raise InvalidInputError(
            f"{place}: unknown {', '.join(unknown)}; expected {', '.join(known)}"
        )
    for key, value in table.items():
        if not _fits(key, value):
            least, most = _RANGES[key]
            raise InvalidInputError(
                f"{place}: {key} is {value!r}, expected a whole number, {least} to {most}"
            )
    return replace(model(name, Target.CPU).scaling, **table)


def _keys(name: str) -> list[str]:
    """Return what can be said of a model."""
    keys = [item.name for item in fields(Scaling)]
    if name != LLM_ENGINE:
        keys.remove("threads")
    if not model(name, Target.CPU).is_queued:
        keys.remove("max_queue_delay_us")
    return keys


def _fits(key: str, value: Any) -> bool:
    least, most = _RANGES[key]
    return type(value) is int and least <= value <= most
