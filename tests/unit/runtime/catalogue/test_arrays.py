"""The tables' files: a trie's and the advertisers'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from adprior_runtime.catalogue.advertisers import Advertisers
from adprior_runtime.catalogue.trie import Trie
from adprior_runtime.errors import ArtefactError

TRIE = Trie.build([(1, 0), (1, 2, 0), (3, 0)], [0, 1, 0])
ADVERTISERS = Advertisers.build([10, 20, 30], ["Acme", "Zéphyr", "麦穗"], [1, 3, 1], [2, 0, 5])
DTYPES: dict[str, dict[str, str]] = {
    "trie": dict.fromkeys(
        ("offsets", "child_tokens", "leaf_advertiser", "leaf_nodes", "leaf_offsets"), "int32"
    ),
    "advertisers": {
        "ids": "int64",
        "log_popularity": "float32",
        "path_counts": "int32",
        "name_bytes": "uint8",
        "name_offsets": "int64",
    },
}
TABLES: dict[str, Any] = {"trie": TRIE, "advertisers": ADVERTISERS}
ARRAYS = [(table, name) for table, arrays in DTYPES.items() for name in arrays]
every_array = pytest.mark.parametrize(("table", "name"), ARRAYS)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_survives_its_files_and_is_mapped(table: str, tmp_path: Path) -> None:
    TABLES[table].save(tmp_path)
    loaded = type(TABLES[table]).load(tmp_path)
    for name, dtype in DTYPES[table].items():
        array = getattr(loaded, name)
        np.testing.assert_array_equal(array, getattr(TABLES[table], name))
        assert array.dtype == dtype
        assert isinstance(array, np.memmap) or isinstance(array.base, np.memmap)


@every_array
def test_a_missing_file_is_refused(table: str, name: str, tmp_path: Path) -> None:
    TABLES[table].save(tmp_path)
    (tmp_path / f"{name}.npy").unlink()
    with pytest.raises(ArtefactError, match=name):
        type(TABLES[table]).load(tmp_path)


@every_array
@pytest.mark.parametrize("size", [0, 5, 60, -1])
def test_a_truncated_file_is_refused(table: str, name: str, size: int, tmp_path: Path) -> None:
    TABLES[table].save(tmp_path)
    path = tmp_path / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ArtefactError, match=f"not a (trie|table of advertisers): {name}"):
        type(TABLES[table]).load(tmp_path)


@every_array
@pytest.mark.parametrize("shape", [0, 1, 2, 99, ()])
def test_arrays_that_do_not_fit_each_other_are_refused(
    table: str, name: str, shape: Any, tmp_path: Path
) -> None:
    TABLES[table].save(tmp_path)
    array: npt.NDArray[Any] = np.zeros(shape, dtype=DTYPES[table][name])
    np.save(tmp_path / f"{name}.npy", array)
    with pytest.raises(ArtefactError, match=r"do not fit each other|has the shape"):
        type(TABLES[table]).load(tmp_path)
