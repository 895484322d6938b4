"""Prepares rows of an input for shards: texts and times as in training, and added columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from adprior_build.data.column_map import EventColumns, ProfileColumns
from adprior_build.data.event_table import prepare_events
from adprior_build.data.profiles import prepare_profiles
from adprior_build.data.repeated_rows import row_digests
from adprior_build.data.tables import decode_text, is_text
from adprior_build.data.text_columns import id_column
from adprior_bulk.inputs.pieces import Piece
from adprior_runtime.errors import InvalidInputError

USER: Final = "__user__"
"""Added column: the user's id as text."""
WRONG: Final = "__wrong__"
"""Added column: what is wrong with a row whose text is not UTF-8; null otherwise."""
ROW: Final = ("__row_0__", "__row_1__")
"""Added columns of events: the digest of the whole row, see `row_digests`."""


def prepare_rows(piece: Piece, table: pa.Table) -> pa.Table:
    """Return rows of a piece with `USER`, `WRONG` and `ROW` added.

    Events and profiles keep only mapped columns, as `prepare_events` and `prepare_profiles` return
    them.

    Args:
        piece: The piece of these rows.
        table: The rows, without dictionary or view columns.

    Raises:
        InvalidInputError: A column has a type that cannot be read.
    """
    mapped, user, file = piece.source.mapped, piece.source.user, str(piece.path)
    digests = row_digests(table) if isinstance(mapped, EventColumns) else None
    texts = table.column_names if isinstance(mapped, ProfileColumns) else [user]
    if isinstance(mapped, EventColumns):
        texts = list(dict.fromkeys(mapped.named().values()))
    wrong = pa.nulls(table.num_rows, pa.string())
    try:
        table = decode_text(piece.path, table, texts)
    except InvalidInputError:
        table, wrong = _without_bad_text(piece.source.kind, table, texts)
    users = id_column(table[user], file, user)
    if isinstance(mapped, EventColumns):
        table = prepare_events(table, mapped, file)
    elif mapped is not None:
        table = prepare_profiles(table, mapped, file)
    else:  # files may differ in the type of ids
        table = table.set_column(table.column_names.index(user), user, users)
    if digests is not None:
        for name, lane in zip(ROW, digests.T, strict=True):
            table = table.append_column(name, pa.array(np.ascontiguousarray(lane)))
    return table.append_column(USER, users).append_column(WRONG, wrong)


def _without_bad_text(
    kind: str, table: pa.Table, texts: Sequence[str]
) -> tuple[pa.Table, pa.Array]:
    """Return a table with null for text that is not UTF-8, and what is wrong with each row."""
    wrong: list[str | None] = [None] * table.num_rows
    for name in texts:
        if not is_text(table[name].type):
            continue
        values: list[str | None] = []
        for row, raw in enumerate(table[name].cast(pa.large_binary()).to_pylist()):
            try:
                values.append(None if raw is None else raw.decode())
            except UnicodeDecodeError:
                values.append(None)
                wrong[row] = f"{kind}: {name} is not UTF-8"
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values, pa.string()))
    return table, pa.array(wrong, pa.string())
