"""Checking expressions against event types: only certain faults are errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepwell.project.event_types import project_types, unannounced_breaks
from stepwell.project.expression_checks import CheckedExpressions, check_expressions
from stepwell.project.load import load

NUMBER = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
TEXT = {"type": "object", "properties": {"total": {"type": "string"}}, "required": ["total"]}


def checked(folder: Path, expression: str, trigger: dict[str, Any] | None = None, **schemas: Any) -> CheckedExpressions:
    """Checks an `if` of a function that starts on `go`, with these versions of the type: v1, v2..."""
    steps = {"a": {"path": "file://."}, "b": {"path": "file://.", "after": [{"step": "a", "if": expression}]}}
    definition = {"id": "f", "triggers": [trigger or {"event": "go"}], "steps": steps}
    (folder / "stepwell.json").write_text(json.dumps(definition))
    (folder / "main.sh").write_text("echo 1")
    (folder / "schemas").mkdir(exist_ok=True)
    for version, schema in schemas.items():
        (folder / "schemas" / f"go.{version}.schema.json").write_text(json.dumps(schema))
    function = load(folder)
    return check_expressions([function], project_types([folder], [function]))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("event.data.totl > 1.0", "did you mean `total`?"),
        ("data.total == 'ten'", "never true"),
        ("event.data.total.amount > 1.0", "has no fields"),
        ("event.data.total && true", "not true or false"),
    ],
)
def test_a_field_that_the_type_cannot_have_is_an_error_with_its_place(
    tmp_path: Path, expression: str, expected: str
) -> None:
    found = checked(tmp_path, expression, v1=NUMBER)
    assert len(found.errors) == 1, found
    assert expected in found.errors[0].message
    assert found.errors[0].pointer == ("steps", "b", "after", 0, "if")


@pytest.mark.parametrize(
    ("expression", "schema"),
    [
        ("event.data.total > 1.0", NUMBER),
        ("event.data.totl > 1.0", NUMBER | {"additionalProperties": True}),
        ("event.data.totl > 1.0", NUMBER | {"additionalProperties": {"type": "number"}}),
        ("event.data.totl > 1.0", NUMBER | {"patternProperties": {"^t": {"type": "number"}}}),
        ("event.data.totl > 1.0", {"type": "object"}),
        ("event.data.totl > 1.0", {}),
        ("event.data.totl > 1.0", True),
        ("has(event.data.totl) && event.data.totl > 1.0", NUMBER),
        ("response.totl > 1.0", NUMBER),
        ("steps.a.anything == 1", NUMBER),
        ("event.data.total == response.total", NUMBER),
        ("event.user.plan == 'pro'", NUMBER),
        ("event.data.totl > 1.0", NUMBER | {"x-stepwell-policy": "off"}),
    ],
)
def test_an_expression_that_can_be_right_is_no_error(tmp_path: Path, expression: str, schema: Any) -> None:
    assert checked(tmp_path, expression, v1=schema).errors == []


def test_a_field_that_a_type_with_policy_off_lacks_is_a_warning(tmp_path: Path) -> None:
    off = NUMBER | {"x-stepwell-policy": "off"}
    for trigger in (None, {"event": "go", "definition": {"def": off}}):
        found = checked(tmp_path, "event.data.totl > 1.0", trigger, v1=off)
        assert (found.errors, ["did you mean" in warning.message for warning in found.warnings]) == ([], [True])


def test_a_field_that_may_be_missing_is_a_warning(tmp_path: Path) -> None:
    found = checked(tmp_path, "event.data.note == 'x'", v1={"properties": {"note": {"type": "string"}}})
    assert (found.errors, len(found.warnings)) == ([], 1)
    assert "has(event.data.note)" in found.warnings[0].message


def test_an_expression_must_fit_the_newest_version_unless_it_checks_v(tmp_path: Path) -> None:
    versions = {"v1": NUMBER, "v2": {"type": "object", "required": ["sum"], "properties": {"sum": {"type": "number"}}}}
    assert checked(tmp_path, "event.data.sum > 1.0", **versions).errors == []
    assert len(checked(tmp_path, "event.data.total > 1.0", **versions).errors) == 1
    for asks in (
        "event.v == 'v1' ? event.data.total > 1.0 : event.data.sum > 1.0",
        "event.v == 'v1' && data.total > 1.0",
    ):
        assert checked(tmp_path, asks, **versions).errors == []
    assert len(checked(tmp_path, "event.v == 'v1' && data.totale > 1.0", **versions).errors) == 1


def test_a_function_without_types_has_nothing_to_check(tmp_path: Path) -> None:
    assert checked(tmp_path, "event.data.anything > 1") == CheckedExpressions([], [])


def test_messages_of_approvals_are_checked_too(tmp_path: Path) -> None:
    approval = {"type": "approval", "message": "Pay {{ data.totl }} of {{ data.total }}?"}
    definition = {"id": "f", "triggers": [{"event": "go"}], "steps": {"a": {"runtime": approval}}}
    (tmp_path / "stepwell.json").write_text(json.dumps(definition))
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "go.v1.schema.json").write_text(json.dumps(NUMBER))
    function = load(tmp_path)
    (error,) = check_expressions([function], project_types([tmp_path], [function])).errors
    assert (error.pointer[-1], "did you mean `total`?" in error.message) == ("message", True)


def test_an_awaited_event_is_checked_against_its_own_type(tmp_path: Path) -> None:
    pause = {"event": "go", "match": "async.data.totl == event.data.x", "ttl": "1d"}
    cancel = [{"event": "go", "if": "async.data.tota == 1.0"}]
    steps = {"a": {"path": "file://.", "after": [{"step": "$trigger", "async": pause}]}}
    definition = {"id": "f", "triggers": [{"event": "other/*"}], "cancel": cancel, "steps": steps}
    (tmp_path / "stepwell.json").write_text(json.dumps(definition))
    (tmp_path / "main.sh").write_text("echo 1")
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "go.v1.schema.json").write_text(json.dumps(NUMBER))
    function = load(tmp_path)
    found = check_expressions([function], project_types([tmp_path], [function]))
    assert {error.pointer[0] for error in found.errors} == {"steps", "cancel"}


def test_a_version_that_a_plain_push_would_refuse_is_reported_with_its_place(tmp_path: Path) -> None:
    checked(tmp_path, "true", v1=NUMBER, v2=TEXT)
    (surprise,) = unannounced_breaks(project_types([tmp_path], []))
    assert (surprise.file.name, surprise.pointer) == ("go.v2.schema.json", ("properties", "total", "type"))
    assert "go v2 breaks v1" in surprise.message
    checked(tmp_path, "true", v2=TEXT | {"x-stepwell-policy": "warn"})
    assert unannounced_breaks(project_types([tmp_path], [])) == []
