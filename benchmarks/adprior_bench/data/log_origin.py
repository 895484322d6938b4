"""Is a log the one that a bundle's model was trained on? The hashes that the bundle records say so.

An evaluation lets baselines learn from the training users of the log it is given. On another log
they learn from other users than the model did, and nobody knows whether the model saw those that it
is tested on: so another log is refused unless it is asked for, and then the report says so.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adprior_runtime.bundle import Manifest, hash_file
from adprior_runtime.errors import InvalidInputError

_SHOWN = 12
"""Digits of a hash that a message shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOrigin:
    """The comparison of a log with the one that a bundle's model was trained on.

    Attributes:
        bundle_id: The bundle.
        given: SHA-256 of each file given, by what it holds: events, profiles, columns.
        recorded: The same of the files that the model was trained on; empty where nothing is
            recorded.
        differences: One clause for each of events and profiles that is another file.
        trained_on: How many users the model was trained on, where that is recorded.
    """

    bundle_id: str
    given: Mapping[str, str]
    recorded: Mapping[str, str]
    differences: tuple[str, ...]
    trained_on: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether the bundle records what log its model was trained on."""
        return "events" in self.recorded

    @property
    def is_other(self) -> bool:
        """Whether the bundle records another log than this."""
        return bool(self.differences)

    @property
    def has_other_columns(self) -> bool:
        """Whether the same log is read through another column map."""
        return self.is_known and self.given["columns"] != self.recorded.get("columns")

    def sentences(self, learnt_from: int | None = None) -> list[str]:
        """Return what whoever reads figures must be told; nothing where all is alike.

        Args:
            learnt_from: Training users of this log, where something learns from them.
        """
        if not self.is_known:
            return [
                f"Bundle {self.bundle_id} does not record which log its model was trained on: "
                "whether the model saw the test users, and whether it learnt from the same users "
                "as the baselines, is not known."
            ]
        if self.is_other:
            return [
                f"This is not the log that bundle {self.bundle_id} was trained on: "
                f"{'; '.join(self.differences)}. Whether the model saw the test users is not known."
                + self._compare_users(learnt_from)
            ]
        if self.has_other_columns:
            return [
                "The log is the model's, the column map is another file than that of its training: "
                "baselines and prompts may see other columns than the model learnt from."
            ]
        return []

    @property
    def lacks_profiles_only(self) -> bool:
        """Whether only the profiles that the model was trained with are not given."""
        same_events = self.given.get("events") == self.recorded.get("events")
        return same_events and "profiles" in self.recorded and "profiles" not in self.given

    def _compare_users(self, learnt_from: int | None) -> str:
        if learnt_from is None:
            return ""
        model = "others" if self.trained_on is None else f"{self.trained_on:,} others"
        return (
            f" The baselines learnt from {learnt_from:,} training users of this log, the model "
            f"from {model}: fewer users make weaker baselines, which flatters the model, and users "
            "unlike its own make a weaker model."
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as reports keep it for machines."""
        return {
            "is_training_log": not self.is_other if self.is_known else None,
            "given_sha256": dict(self.given),
            "trained_on_sha256": dict(self.recorded),
        }


def add_other_log(parser: argparse.ArgumentParser) -> None:
    """Declare the option that lets a command go on with another log."""
    parser.add_argument(
        "--other-log",
        action="store_true",
        help="go on although the log is not the one that the bundle was trained on; said in the "
        "output",
    )


def compare_log(
    manifest: Manifest, events: Path, profiles: Path | None, columns: Path
) -> LogOrigin:
    """Compare a log with what a bundle records of its training.

    Raises:
        InvalidInputError: A file is missing.
    """
    inputs = manifest.training.get("inputs", {})
    paths = {"events": events, "profiles": profiles, "columns": columns}
    for path in paths.values():
        if path is not None and not path.is_file():
            raise InvalidInputError(f"{path}: no such file")
    given = {name: hash_file(path) for name, path in paths.items() if path is not None}
    recorded = {name: inputs[name]["sha256"] for name in paths if name in inputs}
    differences = [
        f"{name} {_describe(paths[name], given.get(name))}, the model's "
        f"{_describe(_file_of(inputs, name), recorded.get(name))}"
        for name in ("events", "profiles")
        if "events" in recorded and given.get(name) != recorded.get(name)
    ]
    return LogOrigin(
        bundle_id=manifest.bundle_id,
        given=given,
        recorded=recorded,
        differences=tuple(differences),
        trained_on=manifest.training.get("training_users"),
    )


def require_training_log(
    manifest: Manifest,
    events: Path,
    profiles: Path | None,
    columns: Path,
    *,
    other_log: bool,
) -> LogOrigin:
    """Compare as `compare_log` does, and refuse another log unless ``other_log`` allows it.

    Raises:
        InvalidInputError: It is another log, or a file is missing.
    """
    origin = compare_log(manifest, events, profiles, columns)
    if origin.is_other and not other_log:
        if origin.lacks_profiles_only:
            raise InvalidInputError(
                f"{events}: bundle {manifest.bundle_id} was trained on this log with profiles: "
                "give them with --profiles, or --other-log to go on without"
            )
        raise InvalidInputError(
            f"{events}: not the log that bundle {manifest.bundle_id} was trained on: "
            f"{'; '.join(origin.differences)}; give the model's own, or --other-log to go on"
        )
    return origin


def _file_of(inputs: Mapping[str, Any], name: str) -> Path | None:
    return Path(inputs[name]["file"]) if name in inputs else None


def _describe(path: Path | None, digest: str | None) -> str:
    if path is None or digest is None:
        return "none"
    return f"{path.name} (sha256 {digest[:_SHOWN]}\N{HORIZONTAL ELLIPSIS})"
