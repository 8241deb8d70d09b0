"""Tests which events are accepted, the messages for those that are refused, and the stored form."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.core.events.engine_ids import EngineId
from stepwell.core.events.envelope import MAX_EVENT_BYTES
from stepwell.core.events.events import Event, event_from, internal_event, run_id, user_key
from stepwell.core.events.request import (
    MAX_BODY_BYTES,
    BadRequest,
    EventError,
    events_accepted_before,
    events_in_pieces,
    parse_events,
)

NOW = 1_700_000_000_000


def parse(body: bytes | str | list[Any] | dict[str, Any]) -> list[Event]:
    numbers = itertools.count(1)
    raw = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_events(raw, NOW, lambda: f"new-{next(numbers)}")


def refused(body: bytes | str | list[Any] | dict[str, Any]) -> BadRequest:
    with pytest.raises(BadRequest) as error:
        parse(body)
    return error.value


def places(body: bytes | str | list[Any] | dict[str, Any]) -> list[tuple[int, str]]:
    bad = refused(body)
    assert bad.status == 400
    return [(error.index, error.pointer) for error in bad.errors]


def test_an_event_is_stored_as_compact_json_in_a_fixed_order() -> None:
    (event,) = parse(
        '{ "ts": 5, "v": "1", "id": "e", "user": {"id": 7}, "data": {"b": 1, "a": [1.0, null]}, "name": "é" }'
    )
    body = '{"name":"é","data":{"b":1,"a":[1.0,null]},"user":{"id":7},"id":"e","ts":5,"v":"1"}'
    assert event == Event("e", "é", {"b": 1, "a": [1.0, None]}, {"id": 7}, 5, "1", body.encode())


@pytest.mark.parametrize("sent", [{"name": "a"}, {"name": "a", **dict.fromkeys(["data", "user", "id", "ts", "v"])}])
def test_missing_fields_are_filled_in(sent: dict[str, Any]) -> None:
    (event,) = parse(sent)
    body = b'{"name":"a","data":{},"user":{},"id":"new-1","ts":1700000000000,"v":null}'
    assert event == Event("new-1", "a", {}, {}, NOW, None, body, fresh=True)


def test_a_request_is_one_event_or_an_array_in_its_order() -> None:
    assert [event.id for event in parse([{"name": "a"}, {"name": "b", "id": "x"}, {"name": "c"}])] == [
        "new-1",
        "x",
        "new-2",
    ]


@pytest.mark.parametrize(
    "event",
    [
        {"name": "a" * 256, "id": "i" * 256, "v": "v" * 128, "ts": 253_402_300_799_999},
        {"name": "stepwell/identify"},
        {"name": "stepwell"},
        {"name": "a", "ts": 0},
        {"name": "a", "data": {"min": -(2**63), "max": 2**64 - 1}},
        {"name": "a", "data": {"text": "9" * 30}},
        {"name": "a", "data": {"float": 12345678901234567890.5}},
        {"name": "a", "data": {"": {"\0": "\0"}}},
    ],
)
def test_valid_events_are_accepted(event: dict[str, Any]) -> None:
    (parsed,) = parse(event)
    assert parsed.as_json()["data"] == event.get("data", {})


@pytest.mark.parametrize(
    ("event", "pointer", "message"),
    [
        ({}, "/name", 'name is missing or not a text; add one such as "user/signed.up"'),
        ({"name": ""}, "/name", 'name is missing or not a text; add one such as "user/signed.up"'),
        ({"name": 1}, "/name", 'name is missing or not a text; add one such as "user/signed.up"'),
        ({"name": "a" * 257}, "/name", "name must have at most 256 characters, and no control characters"),
        ({"name": "a\n"}, "/name", "name must have at most 256 characters, and no control characters"),
        ({"name": "a\x85"}, "/name", "name must have at most 256 characters, and no control characters"),
        (
            {"name": "stepwell/run.failed"},
            "/name",
            "names that begin with stepwell/ are reserved for the engine; choose another name",
        ),
        (
            {"name": "stepwell/identify2"},
            "/name",
            "names that begin with stepwell/ are reserved for the engine; choose another name",
        ),
        ({"name": "a", "data": []}, "/data", "data must be a JSON object"),
        ({"name": "a", "user": "u"}, "/user", "user must be a JSON object"),
        ({"name": "a", "user": {"id": "i" * 257}}, "/user/id", "id of a user must have at most 256 characters"),
        (
            {"name": "a", "user": {"external_id": "i" * 257, "id": "i"}},
            "/user/external_id",
            "external_id of a user must have at most 256 characters",
        ),
        ({"name": "a", "id": ""}, "/id", "id must be a text of 1 to 256 characters, without control characters"),
        ({"name": "a", "id": 5}, "/id", "id must be a text of 1 to 256 characters, without control characters"),
        ({"name": "a", "id": "i" * 257}, "/id", "id must be a text of 1 to 256 characters, without control characters"),
        ({"name": "a", "id": "\0"}, "/id", "id must be a text of 1 to 256 characters, without control characters"),
        ({"name": "a", "ts": -1}, "/ts", "ts must be a whole number of milliseconds since 1970"),
        ({"name": "a", "ts": 1.5}, "/ts", "ts must be a whole number of milliseconds since 1970"),
        ({"name": "a", "ts": True}, "/ts", "ts must be a whole number of milliseconds since 1970"),
        ({"name": "a", "ts": "1"}, "/ts", "ts must be a whole number of milliseconds since 1970"),
        ({"name": "a", "ts": 253_402_300_800_000}, "/ts", "ts must be a whole number of milliseconds since 1970"),
        ({"name": "a", "v": 1}, "/v", 'v must be a text of at most 128 characters, such as "2026-11-23.1"'),
        ({"name": "a", "v": "v" * 129}, "/v", 'v must be a text of at most 128 characters, such as "2026-11-23.1"'),
        ({"name": "a", "dta": {}}, "/dta", "unknown field 'dta'; did you mean 'data'?"),
        ({"name": "a", "total/sum~": 1}, "/total~1sum~0", "unknown field 'total/sum~'; move it into data"),
        (5, "", 'an event must be a JSON object such as {"name": "user/signed.up", "data": {}}'),
        ([], "", 'an event must be a JSON object such as {"name": "user/signed.up", "data": {}}'),
    ],
)
def test_a_bad_event_is_refused_with_its_place(event: Any, pointer: str, message: str) -> None:
    bad = refused([{"name": "good"}, event])
    assert (bad.status, bad.errors) == (400, [EventError(1, pointer, message)])


def test_every_error_of_every_event_is_named_in_order() -> None:
    events = [
        {"name": "", "data": 1, "x": 1},
        {"name": "good"},
        {"name": "a", "data": {"n": 2**64}},
        {"name": "a", "id": 1},
    ]
    assert places(events) == [(0, "/name"), (0, "/data"), (0, "/x"), (2, "/data/n"), (3, "/id")]


@pytest.mark.parametrize(
    ("number", "fits"), [(2**64 - 1, True), (2**64, False), (-(2**63), True), (-(2**63) - 1, False), (10**300, False)]
)
def test_an_integer_of_more_than_64_bits_is_refused_with_its_place(number: int, fits: bool) -> None:
    event = {"name": "a", "data": {"a/b": [0, {"n": number}]}, "user": {"n": number}}
    if fits:
        assert parse(event)[0].user == {"n": number}
    else:
        assert places([{"name": "b"}, event]) == [(1, "/data/a~1b/1/n"), (1, "/user/n")]
        assert "64 bits" in refused(event).errors[0].message


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "empty document"),
        (b"{", "line 1 column 2"),
        (b'{"name": "a"}\n{"name": "b"}', "line 2 column 1"),
        (b"{'name': 'a'}", "line 1 column 2"),
        (b'{"name": NaN}', "line 1 column 10"),
        (b'{"name": "a", "data": {"n": Infinity}}', "line 1 column 29"),
        (b'{"name": "a", "data": {"n": 1e999}}', "infinity"),
        (b'{"name": "\\ud800"}', "surrogate"),
        (b'{"name": "\xff"}', "not valid UTF-8"),
        (b'{"name": "\xed\xa0\x80"}', "not valid UTF-8"),
        (b"[" * 2000 + b"]" * 2000, "more than 129 levels"),
        (b'{"name": "a", "data": {"n": ' + b"1" * 5000 + b"}}", "infinity"),
    ],
)
def test_a_body_that_is_not_json_is_refused_with_the_reason(body: bytes, text: str) -> None:
    bad = refused(body)
    assert (bad.status, len(bad.errors), bad.errors[0].index, bad.errors[0].pointer) == (400, 1, 0, "")
    assert bad.errors[0].message.startswith("the body is not JSON: ")
    assert text in bad.errors[0].message


def test_an_empty_array_is_refused() -> None:
    assert refused(b"[]").errors == [EventError(0, "", "the array is empty; send at least one event")]


def nested(levels: int, inner: str = "") -> str:
    return '{"name": "a", "data": {"a": ' + "[" * levels + inner + "]" * levels + "}}"


def test_an_event_may_have_128_levels() -> None:
    (event,) = parse(nested(126))
    assert orjson.dumps({"data": [{"event": event.as_json()}]})


@pytest.mark.parametrize("levels", [127, 255, 300, 1000])
@pytest.mark.parametrize("inner", ["", "1" * 19, "9" * 30])
def test_an_event_that_is_nested_too_deeply_is_refused(levels: int, inner: str) -> None:
    assert refused(nested(levels, inner)).status == 400
    errors = refused("[" + '{"name": "x"},' + nested(levels, inner) + "]").errors
    if levels < 1000:  # a deeper value is not parsed at all
        assert errors == [EventError(1, "", "the event is nested more than 128 levels deep; flatten it")]


def sized(size: int) -> str:
    empty = '{"name":"a","data":{"x":""}}'
    return empty.replace('""', '"' + "x" * (size - len(empty)) + '"')


def test_an_event_may_have_256_kib_as_it_was_sent() -> None:
    (event,) = parse(sized(MAX_EVENT_BYTES))
    assert len(event.body) > MAX_EVENT_BYTES  # filled-in fields do not count
    assert parse(sized(MAX_EVENT_BYTES).replace(":", ": "))  # spaces do not count


def test_a_larger_event_is_too_large() -> None:
    bad = refused(f'[{{"name": "b", "ts": -1}}, {sized(MAX_EVENT_BYTES + 1)}]')
    message = "the event has 262,145 bytes, more than 262,144; send a reference to large data"
    assert (bad.status, bad.errors[1:]) == (413, [EventError(1, "", message)])


def test_a_request_may_have_4_mib() -> None:
    event = sized(MAX_EVENT_BYTES - 8)
    body = "[" + ",".join([event] * 16) + "]"
    assert len(parse(body.ljust(MAX_BODY_BYTES))) == 16
    assert refused(body.ljust(MAX_BODY_BYTES + 1)).status == 413


def test_the_number_of_errors_in_a_response_is_limited() -> None:
    assert len(refused(b"[" + b"1," * 999 + b"1]").errors) == 1000
    unknown = "{" + ",".join(f'"{n}": 1' for n in range(5000)) + "}"
    assert len(refused("[" + ",".join([unknown] * 50) + "]").errors) == 50 * 21


def test_a_request_may_have_1000_events() -> None:
    assert len(parse(b"[" + b'{"name":"n"},' * 999 + b'{"name":"n"}]')) == 1000
    bad = refused(b"[" + b"1," * 1000 + b"1]")
    assert (bad.status, [error.message for error in bad.errors]) == (
        413,
        ["the request has 1,001 events, more than 1,000; send several requests"],
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
FIELDS = st.sampled_from(["name", "data", "user", "id", "ts", "v", "x"])


@settings(deadline=None)
@given(
    st.binary(max_size=50) | (JSON | st.lists(st.dictionaries(FIELDS, JSON))).map(lambda raw: json.dumps(raw).encode())
)
def test_any_request_is_accepted_completely_or_refused_with_places(body: bytes) -> None:
    try:
        events = parse(body)
    except BadRequest as bad:
        errors, events = bad.errors, []
    else:
        errors = []
    assert bool(errors) != bool(events)
    for error in errors:
        assert error.message
        assert error.pointer == "" or error.pointer.startswith("/")
    for event in events:
        assert Event.stored(7, event.body) == event_from(event.as_json(), event.body, 7)


def in_pieces(body: bytes) -> tuple[list[Event], int]:
    """The events, and the number of yields."""
    numbers, pauses = itertools.count(1), 0
    pieces = events_in_pieces(body, NOW, lambda: f"new-{next(numbers)}")
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value, pauses
        pauses += 1


@settings(deadline=None)
@given(
    st.binary(max_size=50)
    | st.lists(st.dictionaries(FIELDS, JSON) | st.just({"name": "n"}), max_size=50).map(
        lambda raw: json.dumps(raw).encode()
    )
)
def test_reading_in_pieces_gives_the_same_result(body: bytes) -> None:
    assert what_is_found(lambda: in_pieces(body)[0]) == what_is_found(lambda: parse(body))


def what_is_found(read: Callable[[], list[Event]]) -> object:
    try:
        return read()
    except BadRequest as bad:
        return bad.status, bad.errors, bad.others


def test_a_thousand_events_are_read_with_many_yields() -> None:
    events, pauses = in_pieces(b"[" + b'{"name":"n"},' * 999 + b'{"name":"n"}]')
    assert len(events) == 1000
    assert pauses > 40


def test_engine_events_have_the_same_form_as_events_of_senders() -> None:
    event = internal_event("stepwell/run.failed", {"run_id": "r"}, {"id": "u"}, "run:r", 5)
    body = b'{"name":"stepwell/run.failed","data":{"run_id":"r"},"user":{"id":"u"},"id":"run:r","ts":5,"v":null}'
    assert event == Event("run:r", "stepwell/run.failed", {"run_id": "r"}, {"id": "u"}, 5, None, body)


@pytest.mark.parametrize(
    ("user", "key"),
    [
        ({"phone": "4", "email": "3", "id": "2", "external_id": "1"}, "1"),
        ({"phone": "4", "email": "3", "id": "2"}, "2"),
        ({"phone": "4", "email": "3"}, "3"),
        ({"phone": "4"}, "4"),
        ({"external_id": "", "id": 0}, "0"),
        ({"external_id": None, "id": True, "email": [], "phone": 1.5}, None),
        ({"name": "x"}, None),
        ({}, None),
    ],
)
def test_a_user_is_known_by_the_first_of_four_fields(user: dict[str, Any], key: str | None) -> None:
    assert user_key(user) == key


def test_user_fields_that_are_not_the_user_key_may_be_long() -> None:
    user = {"external_id": "\U0001f600" * 256, "id": "i" * 257, "name": "n" * 10_000}
    assert user_key(parse({"name": "a", "user": user})[0].user) == "\U0001f600" * 256


def test_a_runs_id_is_a_function_of_function_event_and_rerun() -> None:
    assert run_id("f", "e") == run_id("f", "e")
    ids = [
        run_id("f", "e"),
        run_id("f", "e", "r"),
        run_id("fe", ""),
        run_id("", "fe"),
        run_id("f", "", "e"),
        run_id("e", "f"),
    ]
    assert len(set(ids)) == len(ids)


@given(*[st.tuples(st.text(max_size=3), st.text(max_size=3), st.text(max_size=3))] * 2)
def test_runs_of_different_events_have_different_ids(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (run_id(*one) == run_id(*other)) is (one == other)


@given(st.text(), st.text())
def test_a_runs_id_is_safe_in_a_url(function_id: str, event_id: str) -> None:
    made = run_id(function_id, event_id)
    assert len(made) == 26
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz234567")


@pytest.mark.parametrize("prefix", EngineId)
@pytest.mark.parametrize("rest", ["", "x", "nightly:29612345", " x", "\u00e9"])
def test_a_sender_cannot_use_an_id_with_a_reserved_prefix(prefix: str, rest: str) -> None:
    bad = refused([{"name": "x"}, {"name": "x", "id": prefix + rest}])
    message = f"ids that begin with '{prefix}' are reserved for the engine; choose another id"
    assert bad.errors == [EventError(1, "/id", message)]


@pytest.mark.parametrize(
    "event_id", ["cron", "Cron:x", "CRON:x", " cron:x", "cron :x", "crons:x", "x cron:y", "my:cron:x", ":"]
)
def test_reserved_prefixes_are_compared_exactly(event_id: str) -> None:
    (event,) = parse({"name": "x", "id": event_id})
    assert event.id == event_id


# --- events that were accepted before --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "event_id"),
    [("go", "e"), ("stepwell/scheduled.timer", "cron:f:1"), ("stepwell/run.failed", f"run:{'a' * 26}")],
)
def test_an_event_accepted_before_may_be_an_engine_event(name: str, event_id: str) -> None:
    (event,) = events_accepted_before([{"name": name, "id": event_id, "ts": 5, "v": None, "user": None}], 7)
    assert (event.name, event.id, event.ts, event.data, event.user, event.fresh) == (name, event_id, 5, {}, {}, False)


@pytest.mark.parametrize(
    ("item", "pointer"),
    [
        ({"name": "go"}, "/id"),
        ({"name": "go", "id": None}, "/id"),
        ({"name": "go", "id": ""}, "/id"),
        ({"name": "go", "id": "e", "accepted_at": "now"}, "/accepted_at"),
        ({"name": "", "id": "e"}, "/name"),
        ({"id": "e"}, "/name"),
        ("go", ""),
    ],
)
def test_an_event_accepted_before_is_checked_like_any_other(item: Any, pointer: str) -> None:
    with pytest.raises(BadRequest) as bad:
        events_accepted_before([{"name": "go", "id": "good"}, item], 7)
    assert [(error.index, error.pointer) for error in bad.value.errors] == [(1, pointer)]
