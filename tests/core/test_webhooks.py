"""Tests webhook rules and the events that they create."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from stepwell.core.cel.expressions import Bindings, Scope, compile_value
from stepwell.core.definition.definition import DefinitionError
from stepwell.core.events.engine_ids import EngineId
from stepwell.core.rules.event_rule import RuleError, made_id
from stepwell.core.rules.template import template
from stepwell.core.webhooks.definition import parse_webhook, schema, warnings
from stepwell.core.webhooks.webhooks import Rule, Sent

VERIFY = {"type": "hmac", "secret": "S", "header": "X-Sig", "algorithm": "sha1", "encoding": "base64"}
WHOLE: dict[str, Any] = {
    "$schema": "../schemas/webhook.schema.json",
    "event": "a/{{ body.kind }}",
    "id": "body.id",
    "data": "body",
    "user": "body.user",
    "ts": "body.at",
    "if": "true",
    "verify": VERIFY,
}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("order/placed", ("order/placed",)),
        ("a/{{ body.x }}", ("a/", "body.x", "")),
        ("{{a}}{{ b }}c", ("", "a", "", "b", "c")),
        ("{{ {'a': {'b': 1}}.a.b }}x", ("", "{'a': {'b': 1}}.a.b", "x")),
        ("{{ '}}' + \"}}\" + 'it\\'s }}' }}", ("", "'}}' + \"}}\" + 'it\\'s }}'", "")),
        ("a}}b{c", ("a}}b{c",)),
    ],
)
def test_a_template_is_text_with_expressions(text: str, parts: tuple[str, ...]) -> None:
    assert template(text) == parts


@pytest.mark.parametrize("text", ["{{ a", "{{ a }", "{{ 'a }}", "{{ {'a': 1 }}", "a {{"])
def test_a_template_whose_expression_does_not_end_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"a \{\{ has no \}\}"):
        template(text)


def test_a_rule_is_stored_as_written_without_absent_fields() -> None:
    assert parse_webhook(WHOLE, "w") == {"name": "w", **{k: v for k, v in WHOLE.items() if k != "$schema"}}
    assert parse_webhook({"event": "a", "name": "w", "id": None, "verify": None}, "w") == {"name": "w", "event": "a"}


def test_all_problems_of_a_rule_are_reported_at_once() -> None:
    with pytest.raises(DefinitionError) as wrong:
        parse_webhook({"evnt": "a", "id": "body.", "verify": {"type": "github", "secert": "S"}}, "w")
    fields = {"/".join(map(str, problem.pointer)): problem.message for problem in wrong.value.problems}
    assert fields["evnt"] == "unknown field `evnt`; did you mean `event`?"
    assert fields["verify/secert"] == "unknown field `secert`; did you mean `secret`?"
    assert fields["id"].startswith("id: `.` is not allowed here (line 1, column 6")
    assert {"event", "verify/secret"} < fields.keys()


@pytest.mark.parametrize(
    ("verify", "pointer", "text"),
    [
        ({"type": "github"}, "secret", "`secret` is missing"),
        ({"type": "hmac", "secret": "S"}, "", "`header` is missing"),
        ({"type": "github", "secret": "S", "over": "{{body}}"}, "over", "only `hmac` has this field"),
        ({"type": "github", "secret": "S", "prefix": "a="}, "prefix", "only `hmac` or `token` has this field"),
        ({"type": "github", "secret": "S", "tolerance": "1m"}, "tolerance", "these signatures contain no time"),
        ({"type": "github", "secret": "S", "topics": ["arn:aws:sns:eu-west-1:123456789012:a"]}, "topics", "only `sns`"),
        ({"type": "hmac", "secret": "S", "header": "x", "over": "x"}, "over", "{{body}} is missing"),
        (
            {"type": "hmac", "secret": "S", "header": "x", "over": "{{ts}}{{body}}"},
            "over",
            "{{ts}} needs the field `timestamp`",
        ),
        ({"type": "hmac", "secret": "S", "header": "x", "timestamp": "x-at"}, "timestamp", "the time must be signed"),
        ({"type": "hmac", "secret": "S", "header": "x", "over": "{{bdy}}"}, "over", "are allowed in the signed text"),
        (
            {"type": "hmac", "secret": "S", "header": "x", "over": "{{body}}", "tolerance": "1m"},
            "tolerance",
            "contain no time",
        ),
        ({"type": "token", "secret": "S", "header": "x", "query": "q"}, "query", "remove one of them"),
        ({"type": "twilio", "secret": "S", "url": "example.com"}, "url", "must be a web address"),
        ({"type": "sns", "secret": "S"}, "secret", "SNS signs with a certificate"),
        ({"type": "sns", "confirm": True}, "confirm", "add `topics`"),
        ({"type": "sns", "topics": ["orders"]}, "topics/0", "a topic must be an ARN"),
        ({"type": "sns", "topics": ["arn:aws:sns:eu-west-1:123456789012:"]}, "topics/0", "a topic must be an ARN"),
        ({"type": "sns", "topics": []}, "topics", "at least one"),
    ],
)
def test_the_fields_of_verify_must_fit_together(verify: Any, pointer: str, text: str) -> None:
    with pytest.raises(DefinitionError) as wrong:
        parse_webhook({"event": "a", "verify": verify}, "w")
    fields = {"/".join(map(str, problem.pointer)): problem.message for problem in wrong.value.problems}
    assert text in fields[f"verify/{pointer}".removesuffix("/")]


@pytest.mark.parametrize(
    ("rule", "pointer", "text"),
    [
        ({"answer": "bdy"}, "answer", "did you mean `body`?"),
        ({"answer": "signature", "if": "signature == ''"}, "if", "there is no variable `signature`"),
        ({"answer": "'x'", "sign": "body.token"}, "sign", "needs the secret of a `verify`"),
        ({"if": "true"}, "answer", "`answer` is missing"),
        ({"answer": "'x'", "tokn": {}}, "tokn", "did you mean `token`?"),
        ({"answer": "'x'", "token": {"query": "q"}}, "token/secret", "`secret` is missing"),
    ],
)
def test_the_fields_of_challenge_must_fit_together(rule: Any, pointer: str, text: str) -> None:
    with pytest.raises(DefinitionError) as wrong:
        parse_webhook({"event": "a", "challenge": rule}, "w")
    fields = {"/".join(map(str, problem.pointer)): problem.message for problem in wrong.value.problems}
    assert text in fields[f"challenge/{pointer}"]


def test_a_rule_for_any_topic_has_a_warning() -> None:
    (problem,) = warnings({"event": "a", "verify": {"type": "sns"}})
    assert "anyone with an AWS account" in problem.message
    assert warnings({"event": "a", "verify": {"type": "sns", "topics": ["arn:aws:sns:eu-west-1:123456789012:a"]}}) == []


def test_a_rule_without_a_signature_has_a_warning() -> None:
    assert [warning.message for warning in warnings({"event": "a"})] == [
        "the rule checks no signature, so anyone can send requests; add `verify`"
    ]
    assert warnings({"event": "a", "verify": VERIFY}) == []


def test_the_schema_accepts_what_is_accepted_and_describes_every_field() -> None:
    found = schema()
    Draft202012Validator.check_schema(found)
    validator = Draft202012Validator(found)
    validator.validate(WHOLE)
    validator.validate({"event": "a"})
    validator.validate({"event": "a", "verify": {"type": "sns"}})
    validator.validate({"event": "a", "body": "json", "challenge": {"answer": "body.challenge", "if": "true"}})
    for wrong in ({}, {"event": ""}, {"event": "a", "x": 1}, {"event": "a", "verify": {"type": "stripe"}}):
        assert not validator.is_valid(wrong)
    for model in (found, *found["$defs"].values()):
        assert all("description" in field for field in model["properties"].values())


def test_a_rule_knows_whether_it_needs_the_body() -> None:
    def needs(**rule: str) -> bool:
        return Rule.of(parse_webhook({"event": "a", **rule}, "w")).needs_body

    assert needs()
    assert needs(data="headers", event="{{ body }}")
    assert needs(data="headers", **{"if": "has(body.x)"})
    assert not needs(data="{'body': headers}", id="query.id")


def test_an_event_has_only_the_fields_of_its_rule() -> None:
    rule = Rule.of({"name": "w", "event": "a"})
    assert rule.event_of(Sent([1], {}, {})) == {"name": "a", "data": {"value": [1]}}
    assert rule.event_of(Sent(None, {}, {}, "7")) == {"name": "a", "data": {}, "id": "webhook:w:7"}


def test_whole_numbers_may_be_part_of_a_name_and_other_values_may_not() -> None:
    rule = Rule.of({"name": "w", "event": "v{{ body }}"})
    assert (rule.event_of(Sent(2, {}, {})) or {})["name"] == "v2"
    for body in (True, None, 1.5, [], {}):
        with pytest.raises(RuleError):
            rule.event_of(Sent(body, {}, {}))


def test_an_id_is_never_too_long_and_is_unique_to_the_webhook() -> None:
    ids = ["a", "a\n", "x" * 242, "x" * 243, "x" * 10_000]
    made = [made_id(EngineId.WEBHOOK, "w" * 6, name) for name in ids]
    assert len(set(made)) == len(ids)
    assert max(map(len, made)) <= 256
    assert all(name.isprintable() for name in made)


@pytest.mark.parametrize("depth", [100, 1000])
def test_a_value_may_be_as_deep_as_json_can_be(depth: int) -> None:
    body: Any = 1
    for _ in range(depth):
        body = [body]
    found = compile_value("{'a': body}", Scope.WEBHOOK).value(Bindings.of_request(body, {}, {}))
    assert found.problem is None


@pytest.mark.parametrize(
    ("source", "is_fine"),
    [
        ("body.xs.map(x, x)", True),
        ("body.xs.map(x, {'x': x, 'ref': body.ref})", True),
        ("body.xs.map(x, [1, 2].map(y, x))", True),
        ("body.xs.map(x, body.text)", False),
        ("body.xs.exists(x, x == size(body.text))", False),
        ("body.xs.all(x, x >= 0)", True),
        ("size(body.text) + size(body.text)", True),
    ],
)
def test_a_loop_must_not_read_a_large_value_repeatedly(source: str, is_fine: bool) -> None:
    large = {"xs": list(range(500)), "text": "x" * 1_000_000, "ref": "main"}
    found = compile_value(source, Scope.WEBHOOK).value(Bindings.of_request(large, {}, {}))
    assert (found.problem is None) is is_fine
    small = Bindings.of_request({**large, "text": "x" * 100}, {}, {})
    assert compile_value(source, Scope.WEBHOOK).value(small).problem is None
