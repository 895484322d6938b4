"""A log as numbers, so that millions of rows are counted in seconds: no event is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from adprior_build.data.event_table import EventTable
from adprior_build.data.time_columns import read_moments
from adprior_runtime.text.normalisation import normalise_text

_Int64Array = npt.NDArray[np.int64]
_EPOCH: Final = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CodedLog:
    """The usable rows of a log as numbers.

    Attributes:
        users: The ids.
        user: int64 [rows], each row's user.
        day: int64 [rows], days since 1970.
        names: The advertisers, normalised.
        advertiser: int64 [rows], each row's advertiser; -1 for none.
        table: The rows.
        unusable: The rows of the log without a user or a time that can be read.
    """

    users: Sequence[str]
    user: _Int64Array
    day: _Int64Array
    names: Sequence[str]
    advertiser: _Int64Array
    table: pa.Table
    unusable: EventTable

    @classmethod
    def of(cls, log: EventTable) -> CodedLog:
        """Number the users, days and advertisers of a log."""
        moments = read_moments(log.table["time"])
        has_user = pc.fill_null(pc.not_equal(log.table["user"], ""), False)
        usable = np.asarray(has_user.to_numpy()) & ~np.isnat(moments)
        table = log.table.filter(pa.array(usable))
        users, user = _codes(table["user"])
        raw, names_of_rows = _codes(table["advertiser"])
        names, place = np.unique([normalise_text(name) for name in raw], return_inverse=True)
        place = np.append(np.where(names == "", -1, np.arange(len(names)))[place], -1)
        return cls(
            users=users,
            user=user,
            day=moments[usable].astype("datetime64[D]").astype(np.int64),
            names=names.tolist(),
            advertiser=place[names_of_rows],
            table=table,
            unusable=replace(
                log, table=log.table.filter(pa.array(~usable)), rows=log.rows[~usable]
            ),
        )


def day_of(number: int) -> date:
    """Return the day that is this many days after 1970-01-01."""
    return date.fromordinal(int(number) + _EPOCH)


def number_of(day: date) -> int:
    """Return the number of days from 1970-01-01 to a day."""
    return day.toordinal() - _EPOCH


def _codes(column: pa.ChunkedArray) -> tuple[list[str], _Int64Array]:
    """Return the different texts, and each row's among them; the next number for nulls."""
    encoded = column.combine_chunks().dictionary_encode()
    values: list[str] = encoded.dictionary.to_pylist()
    indices = encoded.indices.cast(pa.int64()).fill_null(len(values))
    return values, indices.to_numpy(zero_copy_only=False)
