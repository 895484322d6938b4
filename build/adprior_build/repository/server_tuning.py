"""A tuning file: how many instances of each Python model a machine runs, and how they batch.

TOML, with a table for each model that differs from the contract::

    [llm_engine]
    instances = 2            # processes
    threads = 1              # of one forward pass; 0 shares the CPUs among instances
    max_batch_size = 1       # requests answered together
    max_queue_delay_us = 0   # how long a request may wait for others to share its batch

``adprior bench server --sweep --tuning-output FILE`` writes one, and ``adprior build --tuning
FILE`` renders it into the embedded server's configurations.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from adprior_runtime.contract import Target
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.repository.model_specs import Scaling, model
from adprior_runtime.repository.scaling import RANGES, TUNED_MODELS, is_in_range, tunable_fields

Tuning = Mapping[str, Scaling]
"""The scaling of each model, by the model's name."""


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
    """Return the text of a tuning file, with the lines of ``remarks`` as comments above it."""
    lines = [f"# {line}".rstrip() for line in remarks.splitlines()]
    for name, scaling in tuning.items():
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {getattr(scaling, key)}" for key in tunable_fields(name)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _read_table(place: str, name: str, table: Any) -> Scaling:
    if not isinstance(table, dict):
        raise InvalidInputError(f"{place}: found {table!r}, expected a table")
    known = tunable_fields(name)
    if unknown := sorted(table.keys() - set(known)):
        raise InvalidInputError(
            f"{place}: unknown {', '.join(unknown)}; expected {', '.join(known)}"
        )
    for key, value in table.items():
        if not is_in_range(key, value):
            least, largest = RANGES[key]
            raise InvalidInputError(
                f"{place}: {key} is {value!r}, expected a whole number, {least} to {largest}"
            )
    return replace(model(name, Target.CPU).scaling, **table)
