"""Comparison of an event log with the one that a bundle's model was trained on, by file hashes.

Baselines learn from the training users of the given log. On another log, they learn from other
users than the model did, and the model may have seen the test users. Therefore another log is
refused; with ``--other-log`` it is accepted, and the report says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adprior_runtime.bundle import Manifest, hash_file
from adprior_runtime.errors import InvalidInputError

_HASH_DIGITS = 12
"""Digits of a hash in messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOrigin:
    """The comparison.

    Attributes:
        bundle_id: The bundle.
        given: SHA-256 of each given file, by content: events, profiles, columns.
        recorded: SHA-256 of the files that the model was trained on; empty if not recorded.
        differences: A clause for each of events and profiles that differs.
        trained_on: Number of the model's training users, if recorded.
    """

    bundle_id: str
    given: Mapping[str, str]
    recorded: Mapping[str, str]
    differences: tuple[str, ...]
    trained_on: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether the bundle records the log that its model was trained on."""
        return "events" in self.recorded

    @property
    def is_other(self) -> bool:
        """Whether the bundle records another log."""
        return bool(self.differences)

    def sentences(self, training_users: int | None = None) -> list[str]:
        """Return the warnings for readers of the figures, none if the files are the same.

        Args:
            training_users: Number of training users of this log, if baselines learn from them.
        """
        if not self.is_known:
            return [
                f"Bundle {self.bundle_id} does not record which log its model was trained on. The "
                "model may have seen the test users, or learnt from other users than the baselines."
            ]
        if self.is_other:
            return [
                f"This is not the log that bundle {self.bundle_id} was trained on: "
                f"{'; '.join(self.differences)}. The model may have seen the test users."
                + self._compare_users(training_users)
            ]
        if self.given["columns"] != self.recorded.get("columns"):
            return [
                "The log is the one that the model was trained on, but the column map is another "
                "file: baselines and prompts may use other columns than the training did."
            ]
        return []

    @property
    def lacks_profiles_only(self) -> bool:
        """Whether the only difference is that profiles are not given."""
        same_events = self.given.get("events") == self.recorded.get("events")
        return same_events and "profiles" in self.recorded and "profiles" not in self.given

    def _compare_users(self, training_users: int | None) -> str:
        if training_users is None:
            return ""
        model = "other users" if self.trained_on is None else f"{self.trained_on:,} other users"
        return (
            f" The baselines learnt from {training_users:,} training users of this log, the model "
            f"from {model}. With fewer users, the baselines are weaker, and the model "
            "can look better than it is. For users unlike its training users, the model is weaker."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the comparison for a report's data."""
        return {
            "is_training_log": not self.is_other if self.is_known else None,
            "given_sha256": dict(self.given),
            "trained_on_sha256": dict(self.recorded),
        }


def compare_log(
    manifest: Manifest, events: Path, profiles: Path | None, columns: Path
) -> LogOrigin:
    """Compare a log with the bundle's training record.

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
    files = {name: Path(inputs[name]["file"]) for name in recorded}
    differences = [
        f"{name} {_describe(paths[name], given.get(name))}, the model's "
        f"{_describe(files.get(name), recorded.get(name))}"
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
    """Compare as `compare_log` does; refuse another log unless ``other_log`` accepts it.

    Raises:
        InvalidInputError: It is another log, or a file is missing.
    """
    origin = compare_log(manifest, events, profiles, columns)
    if origin.is_other and not other_log:
        if origin.lacks_profiles_only:
            raise InvalidInputError(
                f"{events}: bundle {manifest.bundle_id} was trained on this log with profiles: "
                "give them with --profiles, or --other-log to continue without them"
            )
        raise InvalidInputError(
            f"{events}: not the log that bundle {manifest.bundle_id} was trained on: "
            f"{'; '.join(origin.differences)}; give the model's log, or --other-log to continue"
        )
    return origin


def _describe(path: Path | None, digest: str | None) -> str:
    if path is None or digest is None:
        return "none"
    return f"{path.name} (sha256 {digest[:_HASH_DIGITS]}\N{HORIZONTAL ELLIPSIS})"
