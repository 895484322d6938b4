"""Reading CSV and Parquet tables, with one clear line when one cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from adprior_runtime.errors import InvalidInputError

__all__ = ["read_table"]


def read_table(path: Path, required: Sequence[str] = ()) -> pa.Table:
    """Read a ``.csv`` or ``.parquet`` file whole.

    Raises:
        InvalidInputError: It cannot be read, or lacks one of the ``required`` columns.
    """
    try:
        if path.suffix == ".parquet":
            table = pa.parquet.read_table(path)
        elif path.suffix == ".csv":
            table = pa.csv.read_csv(path)
        else:
            raise InvalidInputError(f"{path}: expected a file named .parquet or .csv")
    except (OSError, pa.ArrowException) as error:
        raise InvalidInputError(f"{path}: {' '.join(str(error).split())}") from error
    if missing := [name for name in required if name not in table.column_names]:
        raise InvalidInputError(
            f"{path}: no column {', '.join(missing)}; found: {', '.join(table.column_names)}"
        )
    return table
