"""A value gives the same tokens from a log, a profile, JSON, the client and bulk."""

from __future__ import annotations

import csv
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from adprior_build.data.column_map import ColumnMap, EventColumns, ProfileColumns
from adprior_build.data.event_log import UserHistory, read_users
from adprior_bulk.inputs.pieces import Inputs, input_pieces
from adprior_bulk.inputs.shard_users import ShardUser, read_shard_users
from adprior_bulk.inputs.staging import stage_piece
from adprior_client import Event, InvalidArgumentError, User
from adprior_client.user_context import user_to_json
from adprior_runtime.errors import InvalidInputError, InvalidRequestError
from adprior_runtime.prompt.context import UserContext, parse_context
from adprior_runtime.prompt.renderer import PromptRenderer
from adprior_runtime.prompt.template import PromptTemplate

AS_OF = datetime(2024, 6, 1, tzinfo=UTC)
COLUMNS = ColumnMap(
    events=EventColumns(
        user="who", time="at", advertiser="brand", category="kind", default_action="purchase"
    ),
    profiles=ProfileColumns(user="id", keys=("value",)),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def _renderer() -> PromptRenderer:
    """Return a renderer with a token for every byte, so that every difference shows."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: place for place, piece in enumerate(["<end>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    template = PromptTemplate(
        terminator="<end>",
        max_prompt_tokens=4096,
        profile=("{pair};", "{key}: {value};"),
        event=("{action} ", "{category}, ", "{advertiser}{end}"),
    )
    return PromptRenderer(template, tokenizer)


RENDERER = _renderer()


def _tokens(context: UserContext) -> list[int]:
    return RENDERER.render(context).token_ids


def _trained(user: UserHistory) -> list[int]:
    return _tokens(UserContext(profile=user.profile, history=user.events, as_of=AS_OF))


def _served(value: Any) -> list[int]:
    """Return the tokens of a value in plain JSON."""
    event = {"time": "2024-05-31", "action": "purchase", "category": value}
    document = {"profile": {"value": value}, "history": [event], "as_of": "2024-06-01"}
    return _tokens(parse_context(json.dumps(document).encode()))


def _sent(value: Any) -> list[list[int]]:
    """Return the tokens of a value in a client's User, and in a dict."""
    event = {"time": "2024-05-31", "action": "purchase", "category": value}
    user = User(profile={"value": value}, history=[Event(**event)], as_of="2024-06-01")
    plain = {"profile": {"value": value}, "history": [event], "as_of": "2024-06-01"}
    return [_tokens(parse_context(user_to_json(each))) for each in (user, plain)]


def _in_parquet(column: pa.Array, directory: Path) -> list[list[list[int]]]:
    """Return each value's tokens, as training reads the column and as bulk does."""
    rows = len(column)
    users = [f"u{row}" for row in range(rows)]
    events = {"who": users, "at": ["2024-05-31"] * rows, "brand": [None] * rows, "kind": column}
    pq.write_table(pa.table(events), directory / "events.parquet")
    pq.write_table(pa.table({"id": users, "value": column}), directory / "profiles.parquet")
    inputs = Inputs(
        events=directory / "events.parquet",
        profiles=directory / "profiles.parquet",
        columns=COLUMNS,
    )
    read = read_users(directory / "events.parquet", directory / "profiles.parquet", COLUMNS)
    for piece in input_pieces(inputs):
        stage_piece(piece, directory, 1)
    found = dict(read_shard_users(inputs, directory, 0, 1, AS_OF, Counter()))
    trained = {user.user_id: _trained(user) for user in read}
    return [[trained[user], _assembled(found[user])] for user in users]


def _assembled(found: ShardUser | Exception) -> list[int]:
    assert not isinstance(found, Exception)
    return _tokens(found.context()[1])


def _in_csv(text: str, directory: Path) -> list[int]:
    for name, header, row in (
        ("events.csv", ["who", "at", "brand", "kind"], ["u0", "2024-05-31", "", text]),
        ("profiles.csv", ["id", "value"], ["u0", text]),
    ):
        with (directory / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, row])
    return _trained(read_users(directory / "events.csv", directory / "profiles.csv", COLUMNS)[0])


FLOATS = st.floats(allow_infinity=False) | st.integers(-1000, 1000).map(float)
DECIMALS = st.decimals(-(10**8), 10**8, allow_nan=False, places=3)
MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1))  # noqa: DTZ001
ARROW: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), TEXTS),
    (pa.large_string(), TEXTS),
    (pa.string_view(), TEXTS),
    (pa.dictionary(pa.int8(), pa.string()), TEXTS),
    (pa.bool_(), st.booleans()),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.int8(), st.integers(-128, 127)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float64(), FLOATS),
    (pa.float32(), st.floats(allow_infinity=False, width=32)),
    (pa.float16(), st.floats(allow_infinity=False, width=16)),
    (pa.decimal128(12, 3), DECIMALS),
    (pa.date32(), st.dates()),
    (pa.timestamp("us"), MOMENTS),
    (pa.timestamp("us", "Europe/Paris"), MOMENTS.map(lambda m: m.replace(tzinfo=UTC))),
    (pa.timestamp("ns"), MOMENTS),
    (pa.null(), st.none()),
]
"""Column types, and strategies for their values."""


def _numpy_of(kind: pa.DataType, value: Any) -> Any:
    """Return a value as a NumPy scalar, if NumPy has such a type."""
    if value is None:
        return None
    narrow: dict[pa.DataType, Callable[[Any], Any]] = {
        pa.float32(): np.float32,
        pa.float16(): np.float16,
        pa.float64(): np.float64,
        pa.int64(): np.int64,
        pa.int8(): np.int8,
        pa.uint64(): np.uint64,
        pa.bool_(): np.bool_,
        pa.timestamp("us"): lambda moment: np.datetime64(moment, "us"),
        pa.date32(): lambda day: np.datetime64(day, "D"),
    }
    return narrow.get(kind, lambda same: same)(value)


@given(st.data())
@settings(max_examples=8, deadline=None)
@pytest.mark.parametrize(("kind", "values"), ARROW, ids=[str(kind) for kind, _ in ARROW])
def test_a_value_has_the_same_tokens_from_every_source(
    kind: pa.DataType, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    drawn = data.draw(st.lists(values | st.none(), min_size=1, max_size=8))
    typed = [_numpy_of(kind, value) for value in drawn]
    column = pa.array(typed if pa.types.is_float16(kind) else drawn, _plain(kind)).cast(kind)
    with tempfile.TemporaryDirectory() as directory:
        read = _in_parquet(column, Path(directory))
    for value, one, scalar, found in zip(drawn, typed, column, read, strict=True):
        ways = [*found, *_sent(one), *_sent(scalar)]
        if isinstance(value, str | int | float) or value is None:
            ways.append(_served(_in_json(kind, value, one)))
        assert all(tokens == ways[0] for tokens in ways)


def _in_json(kind: pa.DataType, value: Any, given: Any) -> Any:
    """Return a value as a caller writes it in JSON: the digits of a narrow float, null for NaN."""
    if isinstance(value, float) and math.isnan(value):
        return None
    is_narrow = kind in (pa.float16(), pa.float32()) and value is not None
    return json.loads(str(given)) if is_narrow else value


def _plain(kind: pa.DataType) -> pa.DataType:
    is_text = pa.types.is_dictionary(kind) or pa.types.is_string_view(kind)
    return pa.string() if is_text else kind


@given(TEXTS)
@example("02139")
@example("1.50")
@example("True")
@example("nan")
@example("NA")
@example(" ")
@example('say "5", twice\r\n')
@settings(max_examples=30, deadline=None)
def test_csv_text_has_the_same_tokens_as_served_text(text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        assert _in_csv(text, Path(directory)) == _served(text)


def test_missing_numbers_do_not_turn_integers_into_fractions(tmp_path: Path) -> None:
    whole = _served(34)
    assert _in_parquet(pa.array([34.0, None]), tmp_path)[0] == [whole, whole]
    assert _sent(34.0) == _sent(np.float32(34)) == [whole, whole]


def _write_one_event(directory: Path) -> None:
    events = {"who": ["u0"], "at": ["2024-05-31"], "brand": ["A"], "kind": ["k"]}
    pq.write_table(pa.table(events), directory / "events.parquet")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1]]),
        pa.array([{"a": 1}]),
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())),
        pa.array([1], pa.duration("s")),
    ],
    ids=["list", "struct", "map", "duration"],
)
def test_a_nested_column_is_refused_by_name(tmp_path: Path, column: pa.Array) -> None:
    _write_one_event(tmp_path)
    pq.write_table(pa.table({"id": ["u0"], "value": column}), tmp_path / "profiles.parquet")
    message = r"profiles\.parquet: column value holds (list|struct|map|duration)[^\n]*$"
    with pytest.raises(InvalidInputError, match=message):
        read_users(tmp_path / "events.parquet", tmp_path / "profiles.parquet", COLUMNS)
    inputs = Inputs(profiles=tmp_path / "profiles.parquet", columns=COLUMNS)
    (piece,) = input_pieces(inputs)
    with pytest.raises(InvalidInputError, match=message):
        stage_piece(piece, tmp_path, 1)


@pytest.mark.parametrize("value", [[1], {"a": 1}])
def test_a_nested_value_is_refused_in_a_request(value: Any) -> None:
    document = {"profile": {"a": 1, "value": value}, "as_of": "2024-06-01"}
    with pytest.raises(InvalidRequestError, match=r"^profile, entry 1: found (a list|an object)"):
        parse_context(json.dumps(document).encode())
    with pytest.raises(InvalidArgumentError, match=r"^profile, entry 1: found (a list|an object)"):
        user_to_json(User(profile={"a": 1, "value": value}, as_of="2024-06-01"))


def test_a_nested_column_that_no_key_selects_is_refused_with_the_remedy(tmp_path: Path) -> None:
    _write_one_event(tmp_path)
    pq.write_table(pa.table({"id": ["u0"], "tags": [["a"]]}), tmp_path / "profiles.parquet")
    columns = ColumnMap(events=COLUMNS.events, profiles=ProfileColumns(user="id"))
    with pytest.raises(InvalidInputError, match=r"column tags holds list.*\[profiles\] keys"):
        read_users(tmp_path / "events.parquet", tmp_path / "profiles.parquet", columns)
