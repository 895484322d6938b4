"""A logged ranking task: what was shown to whom and when, with the outcome. Nothing is simulated.

The log is Parquet or CSV, one row per candidate:

* ``request``: an id, the same for all candidates of a request;
* ``user`` and ``time``: as in the event log, the same in all rows of a request. A forecast sees the
  events of days strictly before the request's day;
* ``advertiser``: a name, or an id of the catalogue, as in the event log;
* ``label``: 1 if the user acted on the candidate, else 0;
* ``base_logit``, optional: the ranker's logit. Without it, a base ranker is fitted on this log;
* ``closes``, optional: the last day that could still change the label, by default the day itself.

Users belong to the groups of `adprior_bench.quality.study`. Requests of validation and test users
count from the cut on. Requests of training users count if they closed before the cut: only a base
ranker learns from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from adprior_bench.quality.histories import (
    EncodedCase,
    EncodedUser,
    Float64Array,
    day_of,
    draw_cases,
    encode_users,
)
from adprior_bench.quality.ranking.impressions import Impressions
from adprior_bench.quality.study import Study
from adprior_build.data.column_map import EventColumns
from adprior_build.data.event_table import event_rows, prepare_events
from adprior_build.data.number_columns import read_numbers, refuse_rows
from adprior_build.data.tables import read_table
from adprior_runtime.errors import InvalidInputError
from adprior_runtime.terminal.progress import track

_COLUMNS: Final = ("request", "user", "time", "advertiser", "label")
_TEXT: Final = ("user", "time", "closes", "advertiser")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoggedRows:
    """The requests of one group of users, and their candidates.

    Attributes:
        cases: One for each request, by time.
        impressions: The candidates that the catalogue has.
        logits: float64 [rows], the logged ranker's; without meaning if the log has none.
    """

    cases: Sequence[EncodedCase]
    impressions: Impressions
    logits: Float64Array

    def sentence(self) -> str:
        """Return the size of the group."""
        users = len({case.user.user_id for case in self.cases})
        labels = self.impressions.labels
        return (
            f"{len(self.cases):,} requests of {users:,} users with {len(labels):,} candidates, "
            f"{int(labels.sum()):,} of them positive"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestLog:
    """A logged ranking task, by group of users.

    Attributes:
        training: Requests of training users that closed before the cut.
        validation: Requests of validation users from the cut on.
        test: Requests of test users from the cut on.
        has_logits: Whether the log has a ranker's logits.
        left_out: Number of rows that belong to none of these, by reason.
    """

    training: LoggedRows
    validation: LoggedRows
    test: LoggedRows
    has_logits: bool
    left_out: Mapping[str, int]

    def sentences(self) -> list[str]:
        """Return the sizes of all groups, and of what was left out."""
        groups = ("training", "validation", "test")
        found = [f"{name}: {getattr(self, name).sentence()}" for name in groups]
        reasons = ", ".join(f"{rows:,} {reason}" for reason, rows in self.left_out.items() if rows)
        return [*found, *([f"candidates left out: {reasons}"] if reasons else [])]


@dataclass(slots=True, kw_only=True, eq=False)
class _Request:
    user: str
    day: int
    closes: int
    candidates: list[tuple[int, float, float]] = field(default_factory=list)
    """Row of the catalogue, label, logit."""
    missed: int = 0


def read_request_log(
    path: Path,
    study: Study,
    name_ids: Callable[[str], Sequence[int]] | None = None,
    limit: int | None = None,
) -> RequestLog:
    """Read a log for the users of a study.

    Args:
        path: The log.
        study: The users, the catalogue and the cut.
        name_ids: That of `Catalogue.rows_by_name`.
        limit: At most this many requests of validation users and of test users, always the same.

    Raises:
        InvalidInputError: A column or a value is wrong; the message names the row.
    """
    left_out: Counter[str] = Counter()
    requests, has_logits = _read_requests(path, study, name_ids, left_out)
    users = _encoded_users(study, {request.user for request in requests}, name_ids)
    groups: dict[str, list[tuple[EncodedCase, _Request]]] = {
        name: [] for name in ("training", "validation", "test")
    }
    cut = day_of(study.splits.cut)
    for request in sorted(requests, key=lambda each: (each.day, each.user)):
        group, rows = study.splits.group_of(request.user), len(request.candidates)
        if request.user not in users or group not in groups:
            left_out["of users outside the evaluation"] += rows
        elif group == "training" and request.closes >= cut:
            left_out["of training users that close after the cut"] += rows
        elif group != "training" and request.day < cut:
            left_out["of other users before the cut"] += rows
        else:
            groups[group].append((_case(users[request.user], request), request))
    return RequestLog(
        **{
            name: _rows(found, None if name == "training" else limit)
            for name, found in groups.items()
        },
        has_logits=has_logits,
        left_out=dict(left_out),
    )


def _read_requests(
    path: Path,
    study: Study,
    name_ids: Callable[[str], Sequence[int]] | None,
    left_out: Counter[str],
) -> tuple[list[_Request], bool]:
    """Return the requests, and whether the log has logits."""
    table = read_table(path, _COLUMNS, _TEXT)
    labels = read_numbers(path, table, "label", pa.float64())
    refuse_rows(path, "label", ~np.isin(labels, (0.0, 1.0)), "expected 0 or 1")
    has_logits = "base_logit" in table.column_names
    logits = read_numbers(path, table, "base_logit" if has_logits else "label", pa.float64())
    refuse_rows(path, "base_logit", ~np.isfinite(logits), "expected a finite number")
    row_of = _catalogue_rows(study, name_ids)
    closes = _days(path, table, "closes" if "closes" in table.column_names else "time")
    found: dict[Any, _Request] = {}
    rows = zip(
        table["request"].to_pylist(),
        _days(path, table, "time"),
        (last for _, last, _ in closes),
        labels.tolist(),
        logits.tolist(),
        strict=True,
    )
    shown = track(rows, total=table.num_rows, desc=f"reading {path.name}", unit="row", leave=False)
    for row, (key, (user, day, advertiser), last, label, logit) in enumerate(shown):
        request = found.setdefault(key, _Request(user=user, day=day, closes=last))
        if (request.user, request.day) != (user, day):
            raise InvalidInputError(
                f"{path}: row {row} (from 0): request {key!r} has another user or day than before"
            )
        if (place := row_of(advertiser)) is None:
            left_out["of advertisers outside the catalogue"] += 1
            request.missed += label == 1
        else:
            request.candidates.append((place, label, logit))
    return [request for request in found.values() if request.candidates], has_logits


def _days(path: Path, table: pa.Table, time: str) -> Iterator[tuple[str, int, str]]:
    """Yield each row's user, day since 1970 in the column ``time``, and advertiser."""
    columns = EventColumns(user="user", time=time, advertiser="advertiser")
    prepared = prepare_events(table, columns, str(path), is_csv=path.suffix == ".csv")
    for user, event, _ in event_rows(prepared, columns, str(path)):
        yield user, day_of(event.time.date()), event.advertiser or ""


def _catalogue_rows(
    study: Study, name_ids: Callable[[str], Sequence[int]] | None
) -> Callable[[str], int | None]:
    named = study.catalogue.rows_by_name(name_ids)
    by_id = {f"#{key}": row for row, key in enumerate(study.catalogue.ids)}
    return lambda text: by_id.get(text, named(text) if text else None)


def _encoded_users(
    study: Study, wanted: set[str], name_ids: Callable[[str], Sequence[int]] | None
) -> dict[str, EncodedUser]:
    """Return the users with a history: training users until the cut, others whole."""
    whole = [user for user_id, user in study.histories.items() if user_id in wanted]
    encoded = encode_users(whole, study.catalogue, study.categories, name_ids)
    return {user.user_id: user for user in (*study.training.users, *encoded)}


def _case(user: EncodedUser, request: _Request) -> EncodedCase:
    positive = sorted({row for row, label, _ in request.candidates if label})
    return EncodedCase(
        user=user,
        stop=int(np.searchsorted(user.days, request.day)),
        day=request.day,
        targets=np.array(positive, dtype=np.int32),
        missed_repeated=0,
        missed_new=request.missed,
    )


def _rows(found: Sequence[tuple[EncodedCase, _Request]], limit: int | None) -> LoggedRows:
    if limit is not None:
        kept = set(map(id, draw_cases([case for case, _ in found], limit)))
        found = [(case, request) for case, request in found if id(case) in kept]
    rows = [
        (place, *candidate)
        for place, (_, request) in enumerate(found)
        for candidate in sorted(request.candidates)
    ]
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return LoggedRows(
        cases=[case for case, _ in found],
        impressions=Impressions(
            cases=columns[:, 0].astype(np.int64),
            rows=columns[:, 1].astype(np.int32),
            labels=columns[:, 2],
        ),
        logits=columns[:, 3],
    )
