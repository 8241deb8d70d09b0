"""Tests definitions of sources, and the events that they make of records."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from stepwell.core.definition.definition import DefinitionError
from stepwell.core.sources.definition import parse_source, schema, warnings
from stepwell.core.sources.places import Place, parse_place
from stepwell.core.sources.records import Record
from stepwell.core.sources.settings import MissingSecret, resolved, secret_names, without_secrets
from stepwell.core.sources.source import Kind, NoEvent, SourceRule

REDIS: dict[str, Any] = {"type": "redis", "url": "redis://localhost", "stream": "orders"}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({}, "", "`type` is missing"),
    ({"type": "kafak"}, "type", "did you mean `kafka`?"),
    ({**REDIS, "strem": "x"}, "strem", "did you mean `stream`?"),
    ({"type": "redis", "url": "redis://localhost"}, "stream", "`stream` is missing"),
    ({**REDIS, "url": "redis://:hush@localhost"}, "url", "must not contain a password"),
    ({**REDIS, "url": "localhost:6379"}, "url", "is not a URL"),
    ({**REDIS, "event": "stepwell/x"}, "event", "reserved for the engine"),
    ({**REDIS, "user": "query.user"}, "user", "there is no variable `query`"),
    ({**REDIS, "batch": 5000}, "batch", "1000"),
    ({"type": "kafka", "brokers": ["b"], "topics": []}, "topics", ""),
    ({"type": "kafka", "brokers": ["b"], "topics": ["t"], "settings": {"ssl.key.password": "x"}}, "settings", "secret"),
    ({"type": "pubsub", "subscription": "orders"}, "", "add `project`"),
]


def rule(**fields: Any) -> SourceRule:
    return SourceRule.of(parse_source({**REDIS, "event": "order", **fields}, "orders"))


def record(body: bytes | None = b"{}", **headers: str) -> Record:
    return Record("redis/orders/1-0", body, headers, {"stream": "orders", "key": "1-0"}, 5)


@pytest.mark.parametrize(("raw", "field", "words"), WRONG)
def test_a_wrong_source_is_refused_with_the_field(raw: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(DefinitionError) as wrong:
        parse_source(raw, "orders")
    problems = {"/".join(map(str, problem.pointer)): problem.message for problem in wrong.value.problems}
    assert words in problems[field]


def test_the_schema_accepts_what_is_valid_and_refuses_unknown_fields() -> None:
    validator = Draft202012Validator(schema())
    Draft202012Validator.check_schema(schema())
    validator.validate({**REDIS, "event": "order", "group": None})
    assert not validator.is_valid({**REDIS, "strem": "x"})
    assert not validator.is_valid({"type": "kafak"})


def test_a_source_without_event_is_for_cloudevents() -> None:
    (warning,) = warnings(parse_source(REDIS, "orders"))
    assert "CloudEvents" in warning.message
    assert warnings(parse_source({**REDIS, "event": "order"}, "orders")) == []


def test_secrets_are_replaced_when_a_source_connects_and_masked_in_messages() -> None:
    source = parse_source({**REDIS, "url": "redis://:${PW}@localhost", "event": "order"}, "orders")
    assert secret_names(source) == {"PW"}
    assert resolved(source, {"PW": "hush"}.get)["url"] == "redis://:hush@localhost"
    assert without_secrets("no access for hush", source, {"PW": "hush"}.get) == "no access for ${PW}"
    with pytest.raises(MissingSecret, match="PW is not set"):
        resolved(source, {}.get)


def test_the_defaults_of_an_event_are_the_body_and_the_place_and_the_time_of_the_record() -> None:
    event = rule().event_of(record(b'{"n": 1}'), 9)
    assert event is not None
    assert (event.name, event.data, event.id, event.ts) == ("order", {"n": 1}, "source:orders:redis/orders/1-0", 5)
    assert not event.fresh, "the same record is recognised when it comes again"


def test_a_body_is_json_or_a_text_or_any_bytes() -> None:
    for reading, body, value in (("json", b"[1]", [1]), ("text", b"a b", "a b"), ("base64", b"\xff", "/w==")):
        event = rule(body=reading).event_of(record(body), 9)
        assert event is not None
        assert event.data == {"value": value}
    assert rule(**{"if": "body != null"}).event_of(record(None), 9) is None


@pytest.mark.parametrize(
    ("fields", "given", "kind", "words"),
    [
        ({}, record(b"{"), Kind.UNREADABLE, "not JSON"),
        ({}, record(b"\xff"), Kind.UNREADABLE, "not UTF-8"),
        ({}, record(b'{"n": 123456789012345678901}'), Kind.UNREADABLE, "cannot be stored exactly"),
        ({}, record(b'"%b"' % (b"x" * 300_000)), Kind.TOO_LARGE, "select less"),
        ({}, record(b'"%b"' % (b"x" * 5_000_000)), Kind.TOO_LARGE, "the record has more than"),
        ({"id": "body.id"}, record(), Kind.RULE, "id"),
        ({"event": None}, record(), Kind.UNREADABLE, "not a CloudEvent"),
        ({"event": None}, record(ce_specversion="0.3"), Kind.UNREADABLE, "specversion"),
    ],
)
def test_a_record_that_makes_no_event_has_a_reason(
    fields: dict[str, Any], given: Record, kind: Kind, words: str
) -> None:
    with pytest.raises(NoEvent) as reason:
        rule(**fields).event_of(given, 9)
    assert reason.value.kind is kind
    assert words in str(reason.value)


def test_fields_of_the_rule_count_more_than_those_of_a_cloudevent() -> None:
    headers = {"ce_specversion": "1.0", "ce_type": "a", "ce_source": "/s", "ce_id": "1"}
    event = rule(event=None, data="{'only': body.n}").event_of(record(b'{"n": 1}', **headers), 9)
    assert event is not None
    assert (event.name, event.data, event.id) == ("a", {"only": 1}, "source:orders:/s 1")


def test_a_replayed_record_makes_an_event_with_another_id() -> None:
    event = rule().event_of(record(), 9, replay="18f")
    assert event is not None
    assert event.id == "source:orders:redis/orders/1-0/replay/18f"


_MANY: list[Record] = [
    record(b'{"kind": "paid", "n": [1, {"deep": 1.50}], "text": "\\u00e9 \xc3\xa9"}'),
    record(b'\xef\xbb\xbf{"kind": "paid"}'),
    record(b' {"kind": "paid", "kind": "last"} '),
    record(b'{"kind": 7}'),
    record(b'{"kind": true}'),
    record(b'{"kind": null}'),
    record(b'{"kind": ""}'),
    record(b'{"kind": "a\\u0000b"}'),
    record(b'{"kind": "a\\nb"}'),
    record(b'{"kind": "%b"}' % (b"x" * 300)),
    record(b'{"other": 1}'),
    record(b'["kind"]'),
    record(b'"kind"'),
    record(b"{"),
    record(b""),
    record(None),
    record(b'{"kind": "paid", "n": 123456789012345678901}'),
    record(b'{"kind": "paid", "n": 18446744073709551615}'),
    record(b'{"kind": "paid", "n": %b}' % (b"[" * 200 + b"]" * 200)),
    record(b'{"kind": "paid", "n": "%b"}' % (b"x" * 262_000)),
    record(b'{"kind": "paid", "n": "%b"}' % (b"x" * 5_000_000)),
    record(b'{"kind": "paid"}', traceparent="00-1-2-01"),
    record(b'{"kind": "paid"}', ce_specversion="1.0", ce_type="a", ce_source="/s", ce_id="1"),
    record(b'{"kind": "paid"}', **{"content-type": " Application/CloudEvents+json"}),
    record(b'{"kind": "paid"}')._replace(at=None),
    record(b'{"kind": "paid"}')._replace(at=-1),
    record(b'{"kind": "paid"}')._replace(id="kafka/a\nb/0/1"),
    record(b'{"kind": "paid"}')._replace(id="kafka/" + "x" * 300),
    record(b'{"kind": "paid"}')._replace(problem="the entry has no field"),
]


@pytest.mark.parametrize("event", ["order", "order/{{ body.kind }}", "{{ body['kind'] }}/{{ body.kind }}"])
@pytest.mark.parametrize("given", _MANY, ids=[str(number) for number in range(len(_MANY))])
@pytest.mark.parametrize("replay", ["", "18f"])
def test_the_short_path_of_usual_rules_makes_the_same_events(event: str, given: Record, replay: str) -> None:
    short = rule(event=event)
    assert short.plain is not None
    assert _result(short, given, replay) == _result(dataclasses.replace(short, plain=None), given, replay)


def test_other_rules_have_no_short_path() -> None:
    for fields in ({"event": None}, {"event": "{{ key }}"}, {"body": "text"}, {"id": "body.id"}, {"if": "true"}):
        assert rule(**fields).plain is None, fields


def _result(given: SourceRule, record: Record, replay: str) -> Any:
    try:
        return given.event_of(record, 9, replay)
    except NoEvent as reason:
        return reason.kind, str(reason)


def test_a_record_is_stored_and_read_back() -> None:
    for given in (record(b"\x00\xff", by="ada"), record(None)):
        assert Record.of_stored(given.stored()) == given


def test_a_place_is_the_beginning_or_a_time_or_a_position() -> None:
    assert parse_place("earliest", 10) == Place()
    assert parse_place("2h", 7_200_001) == Place(time=1)
    assert parse_place("1970-01-01T00:00:01Z", 10) == Place(time=1000)
    assert parse_place("orders/0/12", 10) == Place(position="orders/0/12")
    for text in ("", "2026-01-01T00:00"):
        with pytest.raises(ValueError, match="write"):
            parse_place(text, 10)
