from __future__ import annotations

import json
from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adprior_runtime.contract import MAX_CONTEXT_BYTES
from adprior_runtime.errors import InvalidRequestError
from adprior_runtime.prompt.context import (
    Event,
    UserContext,
    parse_context,
    parse_time,
    read_context,
)

SECRET = "SECRET-9f3"
DAY = "2024-05-31"
NOON = datetime(2024, 5, 31, 12, tzinfo=UTC)
LAST_INSTANT = datetime(2024, 5, 31, 23, 59, 59, 999_999, tzinfo=UTC)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
TIMES = (
    JSON_VALUES
    | st.dates().map(str)
    | st.datetimes(timezones=st.none() | st.timezones()).map(datetime.isoformat)
)
NEAR_EVENTS = st.fixed_dictionaries(
    {"time": TIMES, "action": JSON_VALUES | st.just("visit")},
    optional=dict.fromkeys(["advertiser", "category", "text"], JSON_VALUES | st.text()),
)
NEAR_CONTEXTS = st.fixed_dictionaries(
    {"as_of": TIMES},
    optional={
        "profile": JSON_VALUES | st.dictionaries(st.text(), JSON_VALUES, max_size=4),
        "history": JSON_VALUES | st.lists(NEAR_EVENTS | JSON_VALUES, max_size=4),
    },
)


def _parse(**document: Any) -> UserContext:
    return parse_context(json.dumps({"as_of": DAY} | document).encode())


def _event(**changed: Any) -> dict[str, Any]:
    return {"time": DAY, "action": SECRET, "advertiser": SECRET} | changed


def _history(*events: Any) -> bytes:
    document = {"as_of": DAY, "profile": {"k": SECRET}, "history": [_event(), *events]}
    return json.dumps(document).encode()


def _profile(value: Any) -> bytes:
    profile = {SECRET: SECRET, "k": value}
    return json.dumps({"as_of": DAY, "profile": profile}).encode()


def _as_of(value: Any) -> bytes:
    return json.dumps({"as_of": value, "profile": {"k": SECRET}}).encode()


def test_a_context_is_parsed() -> None:
    context = _parse(
        profile={"age": "30s"},
        history=[
            {
                "time": "2024-05-30T08:15:00",
                "action": "search",
                "advertiser": "Zéphyr",
                "category": "tea",
                "text": "麦穗",
            }
        ],
    )
    assert context == UserContext(
        profile={"age": "30s"},
        history=(
            Event(
                time=datetime(2024, 5, 30, 8, 15, tzinfo=UTC),
                action="search",
                advertiser="Zéphyr",
                category="tea",
                text="麦穗",
            ),
        ),
        as_of=LAST_INSTANT,
    )


def test_a_time_alone_is_a_context() -> None:
    assert _parse() == UserContext(profile={}, history=(), as_of=LAST_INSTANT)


@pytest.mark.parametrize(
    ("as_of", "expected"),
    [
        ("2024-05-31", LAST_INSTANT),
        ("20240531", LAST_INSTANT),
        ("2024-W22-5", LAST_INSTANT),
        ("2024-05-31T12:00:00", NOON),
        ("2024-05-31T12", NOON),
        ("2024-05-31 12:00", NOON),
        ("20240531T12", NOON),
        ("2024W225T12", NOON),
        ("2024-05-31T12:00:00Z", NOON),
        ("2024-05-31T14:00:00+02:00", NOON),
        ("2024-05-30T22:00:00-14:00", NOON),
        ("2024-05-31T12:00:00.000000+00:00", NOON),
        ("2024-05-31T00:00:00", datetime(2024, 5, 31, tzinfo=UTC)),
    ],
)
def test_the_forecasts_time_is_in_utc_and_a_bare_date_its_last_instant(
    as_of: str, expected: datetime
) -> None:
    found = _parse(as_of=as_of).as_of
    assert found == expected
    assert found.utcoffset() == timedelta(0)


def test_a_week_with_an_hour_is_not_a_bare_date() -> None:
    assert _parse(as_of="2024W22T12").as_of == datetime(2024, 5, 27, 12, tzinfo=UTC)


def test_an_events_bare_date_is_its_first_instant() -> None:
    assert _parse(history=[_event()]).history[0].time == datetime(2024, 5, 31, tzinfo=UTC)


@given(st.datetimes(timezones=st.timezones()).filter(lambda moment: 1900 < moment.year < 9999))
def test_a_zone_changes_how_a_moment_is_written_only(moment: datetime) -> None:
    assert parse_time(moment.isoformat(), "time") == datetime.fromisoformat(moment.isoformat())


def test_unknown_keys_are_ignored() -> None:
    plain = _parse(history=[_event()])
    assert _parse(history=[_event(price={"amount": [1]})], version=3, nested={"a": []}) == plain


def test_events_are_put_in_order_of_time_and_equal_times_stay() -> None:
    days = ["2024-05-03", "2024-05-01", "2024-05-02T23:30:00-02:00", "2024-05-01"]
    events = [_event(time=day, action=str(place)) for place, day in enumerate(days)]
    history = _parse(history=events).history
    assert [event.action for event in history] == ["1", "3", "0", "2"]


def test_events_after_the_forecasts_time_are_dropped_and_counted() -> None:
    events = [
        _event(time="2024-05-31T12:00:00.000001", action="late"),
        _event(time="2024-05-31T12:00:00", action="on time"),
        _event(time="2025-01-01", action="far off"),
        _event(time="2024-05-31T13:00:00+01:00", action="on time elsewhere"),
    ]
    context = _parse(as_of="2024-05-31T12:00:00", history=events)
    assert [event.action for event in context.history] == ["on time", "on time elsewhere"]
    assert context.dropped_events == 2


def test_all_of_a_bare_dates_events_are_kept() -> None:
    context = _parse(history=[_event(time="2024-05-31T23:59:59.999999")])
    assert (len(context.history), context.dropped_events) == (1, 0)


def test_null_counts_as_absent() -> None:
    nothing = dict.fromkeys(["advertiser", "category", "text"])
    context = _parse(profile={"a": None, "b": "x"}, history=[_event(**nothing)])
    assert context.profile == {"b": "x"}
    assert context.history[0] == Event(time=datetime(2024, 5, 31, tzinfo=UTC), action=SECRET)


def test_numbers_and_booleans_of_a_profile_become_text() -> None:
    profile = {"yes": True, "no": False, "whole": 3, "part": 2.5, "none": 0, "empty": " "}
    assert _parse(profile=profile).profile == {
        "yes": "true",
        "no": "false",
        "whole": "3",
        "part": "2.5",
        "none": "0",
    }


def test_the_largest_context_is_taken_and_one_byte_more_is_not() -> None:
    raw = json.dumps({"as_of": DAY}).encode()
    largest = raw + b" " * (MAX_CONTEXT_BYTES - len(raw))
    assert parse_context(largest).as_of == LAST_INSTANT
    with pytest.raises(InvalidRequestError, match="USER_CONTEXT: 262145 bytes, at most 262144"):
        parse_context(largest + b" ")


MALFORMED = [
    (SECRET.encode() * MAX_CONTEXT_BYTES, "USER_CONTEXT", "bytes"),
    (b"", "USER_CONTEXT", "not JSON at line 1, column 1"),
    (SECRET.encode(), "USER_CONTEXT", "not JSON"),
    (b'{"as_of": "' + SECRET.encode(), "USER_CONTEXT", "not JSON"),
    (b'{"as_of": "%s"} x' % SECRET.encode(), "USER_CONTEXT", "not JSON"),
    (b'{"%s": "a\nb"}' % SECRET.encode(), "USER_CONTEXT", "not JSON"),
    (SECRET.encode() + b"\xff", "USER_CONTEXT", "not UTF-8 at byte 10"),
    ("\ufeff\ufeff{}".encode(), "USER_CONTEXT", "not JSON"),
    (json.dumps({"as_of": SECRET}).encode("utf-16"), "USER_CONTEXT", "not UTF-8"),
    (b'{"as_of": "%s", "a": NaN}' % SECRET.encode(), "USER_CONTEXT", "not JSON"),
    (b'{"a": -Infinity}', "USER_CONTEXT", "not JSON"),
    (b"[" * 100_000, "USER_CONTEXT", "nested too deep"),
    (b'{"a": %s}' % (b"9" * 5000), "USER_CONTEXT", "number too long"),
    (json.dumps([SECRET]).encode(), "USER_CONTEXT", "found a list, expected an object"),
    (json.dumps(SECRET).encode(), "USER_CONTEXT", "found a string, expected an object"),
    (b"null", "USER_CONTEXT", "found null, expected an object"),
    (b"true", "USER_CONTEXT", "found a boolean, expected an object"),
    (b"17", "USER_CONTEXT", "found a number, expected an object"),
    (json.dumps({"profile": {"k": SECRET}}).encode(), "as_of", "missing"),
    (_as_of(None), "as_of", "found null, expected an ISO 8601"),
    (_as_of(20240531), "as_of", "found a number, expected an ISO 8601"),
    (_as_of([SECRET]), "as_of", "found a list, expected an ISO 8601"),
    (_as_of(SECRET), "as_of", "not an ISO 8601"),
    (_as_of(f"{DAY}T12:00:00 {SECRET}"), "as_of", "not an ISO 8601"),
    (_as_of(""), "as_of", "not an ISO 8601"),
    (_as_of("2024-02-30"), "as_of", "not an ISO 8601"),
    (_as_of("9999-12-31T23:59:59-01:00"), "as_of", "not an ISO 8601"),
    (_as_of("0001-01-01T00:00:00+01:00"), "as_of", "not an ISO 8601"),
    (json.dumps({"as_of": DAY, "profile": [SECRET]}).encode(), "profile", "found a list"),
    (json.dumps({"as_of": DAY, "profile": SECRET}).encode(), "profile", "found a string"),
    (json.dumps({"as_of": DAY, "profile": None}).encode(), "profile", "found null"),
    (_profile({"deep": SECRET}), "profile, entry 1", "found an object"),
    (_profile([SECRET]), "profile, entry 1", "found a list"),
    (_profile("\ud800" + SECRET), "profile, entry 1", "unpaired surrogate"),
    (json.dumps({"as_of": DAY, "history": {"a": SECRET}}).encode(), "history", "found an object"),
    (json.dumps({"as_of": DAY, "history": None}).encode(), "history", "found null"),
    (_history(SECRET), "history[1]", "found a string, expected an object"),
    (_history([SECRET]), "history[1]", "found a list, expected an object"),
    (_history({"action": SECRET}), "history[1].time", "missing"),
    (_history({"time": DAY, "text": SECRET}), "history[1].action", "missing"),
    (_history(_event(time=1717113600)), "history[1].time", "found a number"),
    (_history(_event(time=SECRET)), "history[1].time", "not an ISO 8601"),
    (_history(_event(action=None)), "history[1].action", "found null, expected a string"),
    (_history(_event(action=True)), "history[1].action", "found a boolean, expected a string"),
    (_history(_event(advertiser=17)), "history[1].advertiser", "found a number"),
    (_history(_event(category=[SECRET])), "history[1].category", "found a list"),
    (_history(_event(text={"q": SECRET})), "history[1].text", "found an object"),
    (_history(_event(text=SECRET + "\udfff")), "history[1].text", "unpaired surrogate"),
]


@pytest.mark.parametrize(
    ("raw", "field", "message"), MALFORMED, ids=[f"{row[1]}: {row[2]}" for row in MALFORMED]
)
def test_a_malformed_context_is_refused_by_field_and_never_quoted(
    raw: bytes, field: str, message: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_context(raw)
    shown = str(caught.value)
    assert shown.startswith(f"{field}: ")
    assert message in shown
    assert len(shown.splitlines()) == 1
    assert SECRET not in shown
    # What a traceback would print of the parser's own error, which does quote.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_unpaired_surrogate_in_a_profiles_key_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="profile, entry 0: holds an unpaired surrogate"):
        parse_context(rb'{"as_of": "2024-05-31", "profile": {"\ud800": "x"}}')


@given(st.binary())
def test_bytes_are_parsed_or_refused(raw: bytes) -> None:
    _parse_or_refuse(raw)


@given(JSON_VALUES | NEAR_CONTEXTS)
def test_json_is_parsed_or_refused(document: Any) -> None:
    _parse_or_refuse(json.dumps(document).encode())


def _parse_or_refuse(raw: bytes) -> None:
    try:
        context = parse_context(raw)
    except InvalidRequestError:
        return
    times = [event.time for event in context.history]
    assert times == sorted(times)
    assert all(moment <= context.as_of for moment in times)
    assert all(isinstance(value, str) for value in context.profile.values())


def test_a_history_with_future_events_is_refused() -> None:
    later = Event(time=NOON + timedelta(microseconds=1), action=SECRET)
    with pytest.raises(InvalidRequestError, match=r"history\[0\]\.time: after as_of") as caught:
        UserContext(profile={}, history=(later,), as_of=NOON)
    assert SECRET not in str(caught.value)


def test_a_history_out_of_order_is_refused() -> None:
    days = [Event(time=NOON - timedelta(days=ago), action=SECRET) for ago in (3, 1, 2)]
    with pytest.raises(InvalidRequestError, match=r"history\[2\]\.time: not oldest first"):
        UserContext(profile={}, history=days, as_of=NOON)


def test_events_may_share_a_moment_and_be_as_late_as_the_forecast() -> None:
    event = Event(time=NOON, action="visit")
    assert UserContext(profile={}, history=(event, event), as_of=NOON).history == (event, event)


def test_a_byte_order_mark_is_skipped() -> None:
    raw = json.dumps({"as_of": DAY}).encode()
    assert parse_context(b"\xef\xbb\xbf" + raw) == parse_context(raw)


def test_texts_of_white_space_count_as_absent() -> None:
    blank = {"advertiser": "", "category": " ", "text": "\n"}
    context = _parse(profile={"a": " ", "b": ""}, history=[_event(**blank)])
    assert context == _parse(history=[_event(**dict.fromkeys(blank))])


def test_values_of_an_event_become_text() -> None:
    (event,) = _parse(history=[_event(category=5.0, text=True)]).history
    assert (event.category, event.text) == ("5", "true")


def test_whole_numbers_have_no_fraction_and_infinity_is_absent() -> None:
    raw = b'{"as_of": "2024-05-31", "profile": {"age": 34.0, "big": 1e3, "huge": 1e999}}'
    assert parse_context(raw).profile == {"age": "34", "big": "1000"}


@pytest.mark.parametrize(
    "moment",
    [
        date(2024, 5, 31),
        datetime(2024, 5, 31, 12),  # noqa: DTZ001
        datetime(2024, 5, 31, 12, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_python_times_mean_what_their_iso_text_means(moment: date) -> None:
    event = {"time": moment, "action": "buy"}
    as_text = {"time": moment.isoformat(), "action": "buy"}
    expected = {"history": [as_text], "as_of": moment.isoformat()}
    found = read_context({"history": [event], "as_of": moment})
    assert found == parse_context(json.dumps(expected).encode())


class _Names(list[str]):
    """A caller's own kind of list."""


@pytest.mark.parametrize(
    ("value", "found"), [(OrderedDict(a=1), "an object"), (_Names(["a"]), "a list")]
)
def test_a_value_of_a_subclass_is_reported_as_its_base(value: object, found: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^as_of: found {found}, expected"):
        read_context({"as_of": value})
