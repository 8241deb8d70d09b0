"""The check of expressions against the schemas of their events: errors, warnings, and correct expressions."""

from __future__ import annotations

from typing import Any

import pytest

from stepwell.core.definition.definition import parse_definition
from stepwell.event_types.check import check, doubts

ORDER: dict[str, Any] = {
    "type": "object",
    "required": ["amount", "plan", "items", "customer", "paid", "note"],
    "properties": {
        "amount": {"type": "number"},
        "plan": {"enum": ["free", "pro"]},
        "coupon": {"type": "string"},
        "note": {"type": ["string", "null"]},
        "paid": {"type": "boolean"},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
        "customer": {"anyOf": [{"$ref": "#/$defs/person"}, {"$ref": "#/$defs/company"}]},
        "extra": {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": True},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "anything": True,
        "placed_at": {"type": "string", "format": "date-time"},
    },
    "$defs": {
        "item": {"type": "object", "properties": {"sku": {"type": "string"}, "n": {"type": "integer"}},
                 "required": ["sku", "n"]},
        "person": {"type": "object", "properties": {"kind": {"const": "person"}, "first_name": {"type": "string"}},
                   "required": ["kind", "first_name"]},
        "company": {"type": "object", "properties": {"kind": {"const": "company"}, "vat": {"type": "string"}},
                    "required": ["kind", "vat"]},
    },
}  # fmt: skip
PAID = {
    "type": "object",
    "properties": {"order": {"type": "string"}, "amount": {"type": "integer"}},
    "required": ["order"],
}
SCHEMAS: dict[str, Any] = {"order/placed": ORDER, "order/paid": PAID}


def function(expression: str | None = None, event: str = "order/placed", **step: Any) -> dict[str, Any]:
    trigger = {"event": event} | ({} if expression is None else {"expression": expression})
    steps = {"a": {"path": "file://."}} | (
        {"b": {"path": "file://.", "after": [{"step": "a", **step}]}} if step else {}
    )
    return parse_definition({"id": "f", "triggers": [trigger], "steps": steps}).normalised()


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (
            "event.data.ammount > 10",
            "`event.data.ammount`: there is no field `ammount`; did you mean `amount`? (column 1",
        ),
        (
            "1 == 1 && data.ammount > 10",
            "`data.ammount`: there is no field `ammount`; did you mean `amount`? (column 11",
        ),
        ("event.data['ammount'] > 10", "there is no field `ammount`; did you mean `amount`?"),
        ("event.dta.amount > 1", "`event.dta`: there is no field `dta`; did you mean `data`?"),
        (
            "event.data.amount == '10'",
            'compares `event.data.amount`, a number, with "10", a string, which is never true',
        ),
        ("event.data.amount != '10'", "which is always true"),
        (
            "event.data.amount > '10'",
            'compares `event.data.amount`, a number, with "10", a string, which have no order',
        ),
        ("event.data.items > 1", "`event.data.items` is a list, which has no order"),
        ("event.data.customer < event.data.customer", "is an object, which has no order"),
        ("event.data.plan == 'por'", '`event.data.plan` is never "por"; did you mean `pro`?'),
        ("event.data.plan in ['gold', 'silver']", '`event.data.plan` is never "gold", "silver"'),
        ("event.data.amount in ['1']", "is a number, but none of the values after `in` is"),
        ("event.data.amount.x == 1", "`event.data.amount` is a number, which has no fields"),
        ("event.data.amount", "`event.data.amount` is a number, but a condition must be true or false"),
        ("event.data.amount && true", "`event.data.amount` is a number, not true or false"),
        ("!event.data.plan", "is a string, not true or false"),
        ("event.data.amount.startsWith('1')", "`startsWith` does not work with `event.data.amount`, a number"),
        ("size(event.data.amount) > 1", "`size` does not work with `event.data.amount`, a number"),
        ("event.data.amount + 'x' == 'x'", "`+` does not work with a number and a string"),
        ("event.data.amount * 2 > 100", "`event.data.amount` may be either, 2 is a whole number; write"),
        ("event.data.amount * 2 > 100", "write double(event.data.amount) * 2.0"),
        ("event.data.amount * 2.0 > 100.0", "write double(event.data.amount) * 2.0"),
        ("1 + data.amount == 2", "`+` does not work with a whole number and a fraction together"),
        ("data.amount - data.amount > 1", "write double(data.amount) - double(data.amount)"),
        ("data.items[0].n * 1.5 > 1.0", "1.5 has a fraction; write double("),
        ("data.items.exists(i, i.n / data.amount > 1)", "write double(i.n) / double(data.amount)"),
        ("size(data.items) * data.amount > 1", "`*` does not work with a whole number and a fraction together"),
        ("(data.amount * 2.0 > 1.0 ? data.amount : 1.0) == 2.0", "write double(data.amount) * 2.0"),
        (
            "data.amount % 2 == 0",
            "`%` divides whole numbers: `data.amount` may be either, 2 is a whole number; write int(",
        ),
        ("event.data.placed_at.getHours() > 3", "a string; write timestamp(...)"),
        ("event.data.items.exists(i, i.skuu == 'x')", "`i.skuu`: there is no field `skuu`; did you mean `sku`?"),
        ("event.data.items[0].n == 'x'", 'with "x", a string'),
        ("event.data.customer.firstname == 'x'", "did you mean `first_name`?"),
        ("event.data.labels.x == 1", "with 1, a number"),
        ("event.data.paid == 'true'", "true or false"),
        ("event.ts > '2020'", "compares `event.ts`, a number"),
        ("true ? event.data.ammount > 1 : false", "there is no field `ammount`"),
    ],
)
def test_errors_are_found(expression: str, message: str) -> None:
    (found,) = check(function(expression), SCHEMAS)
    assert found.pointer == ("triggers", 0, "expression")
    assert message in found.message


@pytest.mark.parametrize(
    "expression",
    [
        "event.data.amount > 10 && event.data.plan == 'pro'",
        "event.data.amount >= 1.5 || data.paid",
        "event.data.amount == 2 || event.data.amount < 3 || event.data.amount in [1, 2]",
        "double(data.amount) * 2.0 > 1.0 && double(data.amount) * double(data.items[0].n) > 1.0",
        "int(data.amount) % 2 == 0 && int(data.amount) * 2 > size(data.items) + 1",
        "data.items[0].n + 1 > 2 && event.ts / 1000 > 1 && -data.items[0].n < 0",
        "data.anything * 2 > 1 && data.anything * 2.0 > 1.0 && data.anything % 2 == 1",
        "data.items.all(i, i.n * 2 > 0)",
        "data.items.map(i, i.n)[0] * 2 > 0",
        "has(event.data.cupon) && event.data.cupon == 3",
        "has(event.data.ammount)",
        "!has(event.data.ammount) || event.data.ammount == 1",
        "has(data.ammount) ? event.data.ammount == 'x' : true",
        "event.data.ammount == 1 && has(event.data.ammount)",
        "event.data.extra.whatever.you.like == 1",
        "event.data.anything.x.y > 3 && event.data.anything == 'a'",
        "event.data.labels.size() > 1 && event.data.labels.x == 'y'",
        "event.data.items.all(i, i.n > 0) && event.data.items.map(i, i.sku).size() > 1",
        "event.data.items.exists_one(i, i.sku == 'x')",
        "event.data.customer.kind == 'person' && event.data.customer.first_name != ''",
        "timestamp(event.data.placed_at) > timestamp('2020-01-01T00:00:00Z')",
        "timestamp(event.data.placed_at).getHours() > 3",
        "string(event.data.amount) == '10' && double(event.data.amount) * 2.0 > 3.0",
        "event.user.whatever == 1 && user.x > 'a' && event.v == null",
        "event.data.note == null || event.data.note.startsWith('a')",
        "event.data.plan in ['pro', 'gold'] && 'sku' in event.data.labels",
        "dyn(event.data.amount) == 'x'",
    ],
)
def test_correct_expressions_have_no_errors(expression: str) -> None:
    assert check(function(expression), SCHEMAS) == []


def test_without_a_schema_only_the_envelope_is_known() -> None:
    for event in ("other/event", "order/*"):
        assert check(function("event.data.ammount.x == 'a' && event.data.amount > '1'", event), SCHEMAS) == []
        assert check(function("event.data.ammount == 1", event), {"other/event": None}) == []
        (found,) = check(function("event.dat.x == 1", event), {})
        assert "did you mean `data`?" in found.message


def test_an_optional_field_without_has_is_only_a_doubt() -> None:
    fields = function("event.data.coupon == 'x'")
    assert check(fields, SCHEMAS) == []
    (doubt,) = doubts(fields, SCHEMAS)
    assert "check has(event.data.coupon) first" in doubt.message
    for guarded in ("has(event.data.coupon) && data.coupon == 'x'", "!has(data.coupon) || event.data.coupon == 'x'"):
        assert doubts(function(guarded), SCHEMAS) == []
    (null,) = doubts(function("event.data.amount == null"), SCHEMAS)
    assert "`event.data.amount` is never null" in null.message


def test_edges_and_waits_are_checked_against_their_events() -> None:
    match = "async.data.order == event.data.amount && async.data.ammount > 1 && async.user.x == event.user.x"
    fields = function(
        **{
            "if": "event.data.ammount > 1 && response.x > steps.a.y",
            "async": {"event": "order/paid", "match": match, "ttl": "1d"},
        }
    )
    found = check(fields, SCHEMAS)
    assert [(problem.pointer[-1], problem.message.partition("`")[2].partition("`")[0]) for problem in found] == [
        ("if", "event.data.ammount"),
        ("match", "async.data.order"),
        ("match", "async.data.ammount"),
    ]
    assert "a string, with `event.data.amount`, a number, which is never true" in found[1].message


def test_a_field_must_exist_for_at_least_one_trigger() -> None:
    triggers = [{"event": "order/placed"}, {"event": "order/paid"}]
    after = [
        {"step": "a", "if": "event.data.plan == 'pro' || event.data.order == 'x'"},
        {"step": "a", "if": "event.data.oder == 'x'"},
    ]
    steps = {"a": {"path": "file://."}, "b": {"path": "file://.", "after": after}}
    fields = parse_definition({"id": "f", "triggers": triggers, "steps": steps}).normalised()
    assert [problem.pointer for problem in check(fields, SCHEMAS)] == [("steps", "b", "after", 1, "if")]
    assert check(fields, {"order/placed": ORDER}) == []


def test_a_cron_function_knows_its_tick() -> None:
    steps = {
        "a": {"path": "file://."},
        "b": {"path": "file://.", "after": [{"step": "a", "if": "event.data.scheduled == ''"}]},
    }
    fields = parse_definition({"id": "f", "triggers": [{"cron": "* * * * *"}], "steps": steps}).normalised()
    (found,) = check(fields, {})
    assert "did you mean `scheduled_at`?" in found.message


def test_a_schema_of_the_whole_event_describes_the_user_too() -> None:
    user = {"type": "object", "properties": {"email": {"type": "string"}}, "required": ["email"]}
    whole = {
        "type": "object",
        "properties": {"name": {"const": "order/placed"}, "data": ORDER | {"$defs": {}}, "user": user},
        "$defs": ORDER["$defs"],
    }
    (found,) = check(function("event.user.emial == 'x' && event.data.amount > 1"), {"order/placed": whole})
    assert "did you mean `email`?" in found.message


def test_cancel_flow_control_and_sticky_are_checked() -> None:
    fields = {
        **function(),
        "cancel": [{"event": "order/paid", "if": "async.data.oder == 'x'"}],
        "idempotency": "event.data.amont",
        "rate_limit": {"limit": 1, "period": "1h", "key": "event.data.custmer"},
        "singleton": {"mode": "skip", "key": "event.data.custmer"},
    }
    assert [problem.pointer for problem in check(fields, SCHEMAS, sticky="data.plann")] == [
        ("cancel", 0, "if"), ("idempotency",), ("rate_limit", "key"), ("singleton", "key"), ("sticky",),
    ]  # fmt: skip


def test_the_check_of_recursive_and_hostile_schemas_ends() -> None:
    tree = {"type": "object", "properties": {"value": {"type": "integer"}, "left": {"$ref": "#"}}}
    deep = "event.data." + ".".join(["left"] * 20) + ".value == 'x'"
    (found,) = check(function(deep), {"order/placed": tree})
    assert 'with "x", a string' in found.message
    wide = {"anyOf": [{"anyOf": [{"anyOf": [{"properties": {f"f{i}": True}} for i in range(20)]}] * 20}] * 20}
    assert check(function("event.data.x.y == 1"), {"order/placed": wide}) == []


@pytest.mark.parametrize(
    ("until", "message"),
    [
        ("data.placed_att", "`data.placed_att`: there is no field `placed_att`; did you mean `placed_at`?"),
        ("data.paid", "`data.paid` is true or false, but a time is a timestamp, an RFC 3339 text or milliseconds"),
        ("data.items", "`data.items` is a list, but a time is"),
        ("data.placed_at", None),
        ("timestamp(data.placed_at) + duration('1h')", None),
        ("data.amount", None),
        ("data.anything", None),
        ("response.at", None),
    ],
)
def test_times_of_delays_are_checked(until: str, message: str | None) -> None:
    found = check(function(wait={"until": until}), SCHEMAS)
    assert [problem.pointer for problem in found] == [("steps", "b", "after", 0, "wait", "until")] * bool(message)
    assert message is None or found[0].message.startswith(message)


def test_the_fields_of_an_event_to_send_are_checked() -> None:
    runtime = {"type": "emit", "event": "told", "data": "{'a': data.ammount}", "user": "data.note", "ts": "data.paid"}
    fields = {"id": "f", "triggers": [{"event": "order/placed"}], "steps": {"tell": {"runtime": runtime}}}
    found = check(parse_definition(fields).normalised(), SCHEMAS)
    assert [problem.pointer[-1] for problem in found] == ["data", "ts"]


def test_messages_of_approvals_are_checked() -> None:
    message = "Pay {{ data.ammount }} of {{ data.note }}, {{ data.coupon }}?"
    steps = {"ask": {"runtime": {"type": "approval", "message": message}}}
    asked = parse_definition({"id": "f", "triggers": [{"event": "order/placed"}], "steps": steps}).normalised()
    (wrong,), (doubt,) = check(asked, SCHEMAS), doubts(asked, SCHEMAS)
    assert {wrong.pointer, doubt.pointer} == {("steps", "ask", "runtime", "message")}
    assert "did you mean `amount`?" in wrong.message
    assert "`data.coupon` may be missing, and then this is an error" in doubt.message
